import numpy as np
import tensorflow as tf
from tensorflow.keras.models import Model
from tensorflow.keras.layers import Input, Conv2D, MaxPooling2D, Flatten, Dense, Dropout, add

def vgg_block(x, convs, filters, name):
    for i in range(convs):
        x = Conv2D(filters, (3, 3), activation='relu', padding='same', name=f'{name}_conv{i+1}')(x)
    return MaxPooling2D((2, 2), strides=(2, 2), name=f'{name}_pool')(x)

inputs = Input(shape=(64, 64, 3))
x = vgg_block(inputs, 2, 8, 'block1')
x = vgg_block(x, 2, 16, 'block2')
x = vgg_block(x, 3, 32, 'block3')
base_model = Model(inputs, x, name='vgg')

for layer in base_model.layers[:-4]:
    layer.trainable = False
shortcut = base_model.output
x = Conv2D(32, (3, 3), padding='same')(shortcut)
x = add([x, shortcut])
x = Flatten()(x)
x = Dense(32, activation='relu')(x)
x = Dropout(0.5)(x)
predictions = Dense(5, activation='softmax')(x)
model = Model(inputs=base_model.input, outputs=predictions)
model.compile(optimizer=tf.keras.optimizers.SGD(learning_rate=0.01, momentum=0.9),
              loss='categorical_crossentropy', metrics=['accuracy'])
model.summary()

data = np.random.rand(8, 64, 64, 3)
labels = tf.keras.utils.to_categorical(np.random.randint(5, size=(8, 1)), num_classes=5)
history = model.fit(data, labels, batch_size=4, epochs=1)
trainable = [layer.trainable for layer in model.layers]
names = [layer.name for layer in base_model.layers[1:]]
number_of_trainable_weights = len(model.trainable_weights)

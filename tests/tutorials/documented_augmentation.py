import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
from tensorflow.keras.preprocessing.image import ImageDataGenerator

class LossHistory(keras.callbacks.Callback):
    def on_train_begin(self, logs={}):
        self.losses = []

    def on_batch_end(self, batch, logs={}):
        self.losses.append(logs.get('loss'))

class StopWhenGood(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if logs.get('accuracy') > 0.999:
            self.model.stop_training = True

(x_train, y_train), (x_test, y_test) = tf.keras.datasets.cifar10.load_data()
x_train = x_train.astype('float32') / 255
x_test = x_test.astype('float32') / 255
num_classes = len(np.unique(y_train))

model = keras.Sequential()
model.add(keras.Input(shape=x_train.shape[1:]))
model.add(layers.Conv2D(16, (3, 3), padding='same', kernel_initializer='he_uniform', activation=tf.nn.relu))
model.add(layers.Conv2D(16, (3, 3), kernel_initializer=keras.initializers.HeNormal(), activation='relu'))
model.add(layers.MaxPool2D())
model.add(layers.Dropout(0.25))
model.add(layers.Flatten())
model.add(layers.Dense(num_classes, activation=tf.nn.softmax))
model.compile(loss='sparse_categorical_crossentropy', optimizer='rmsprop', metrics=['accuracy'])

datagen = ImageDataGenerator(
    featurewise_center=False,  # set input mean to 0 over the dataset
    samplewise_center=False,  # set each sample mean to 0
    featurewise_std_normalization=False,  # divide inputs by std of the dataset
    samplewise_std_normalization=False,  # divide each input by its std
    zca_whitening=False,  # apply ZCA whitening
    zca_epsilon=1e-06,  # epsilon for ZCA whitening
    rotation_range=0,  # randomly rotate images in the range (degrees, 0 to 180)
    width_shift_range=0.1,
    height_shift_range=0.1,
    shear_range=0.,
    zoom_range=0.,
    channel_shift_range=0.,
    fill_mode='nearest',
    cval=0.,
    horizontal_flip=True,
    vertical_flip=False,
    rescale=None,
    preprocessing_function=None,
    data_format=None,
    validation_split=0.0)
datagen.fit(x_train)

batches = LossHistory()
history = model.fit(datagen.flow(x_train, y_train, batch_size=32), epochs=2,
                    validation_data=(x_test, y_test), callbacks=[batches, StopWhenGood()])
number_of_batches = len(batches.losses)
epochs_in_model = len(model.history.history['val_accuracy'])
names = sorted(model.evaluate(x_test, y_test, verbose=1, return_dict=True))

img = x_test[0]
img = np.expand_dims(img, 0)
predictions_single = model.predict(img)
class_is_known = bool(np.argmax(predictions_single[0]) < num_classes)
shape_of_predictions = predictions_single.shape

import numpy as np
import tensorflow as tf
from tensorflow.keras.preprocessing.image import load_img, img_to_array
import matplotlib.pyplot as plt

image = img_to_array(load_img(photo)) / 255
images = np.array([image, image[:, ::-1]], dtype=np.float32)
batch_size, height, width, channels = images.shape

# two filters: a vertical and a horizontal line
filters = np.zeros(shape=(7, 7, channels, 2), dtype=np.float32)
filters[:, 3, :, 0] = 1
filters[3, :, :, 1] = 1
outputs = tf.nn.conv2d(images, filters, strides=1, padding="SAME")
plt.imshow(outputs[0, :, :, 1], cmap="gray")
plt.axis("off")
plt.show()

# vertical edges of the grey image, then the strongest of each block
grey = images.mean(axis=3, keepdims=True)
edge = np.array([[-1, 0, 1]] * 3, dtype=np.float32).reshape(3, 3, 1, 1)
edges = tf.nn.conv2d(grey, edge, strides=[1, 1, 1, 1], padding="VALID")
edges_2 = tf.nn.conv2d(grey, edge, strides=(2, 2), padding="SAME")
pooled = tf.nn.max_pool(edges, ksize=[1, 3, 3, 1], strides=[1, 3, 3, 1], padding='VALID')
condensed = tf.nn.max_pool2d(tf.nn.relu(edges), ksize=(2, 2), strides=(2, 2), padding='SAME')
averaged = tf.nn.avg_pool(edges, ksize=2, strides=2, padding="VALID")
fig, ax = plt.subplots(1, 3)
ax[0].imshow(np.squeeze(grey[0]), cmap='gray')
ax[1].imshow(np.squeeze(edges[0]), cmap='gray')
ax[2].imshow(np.squeeze(pooled[0]), cmap='gray')
plt.show()

conv = tf.keras.layers.Conv2D(10, kernel_size=(3, 3), activation='relu', padding='same', strides=1)
fmaps = conv(images)
kernels, biases = conv.get_weights()
max_pool = tf.keras.layers.MaxPool2D(pool_size=2)(fmaps)
avg_pool = tf.keras.layers.AvgPool2D(pool_size=(2, 3))(fmaps)
max_pooling = tf.keras.layers.MaxPooling2D(2)(fmaps)
average_pooling = tf.keras.layers.AveragePooling2D(2)(fmaps)
global_avg_pool = tf.keras.layers.GlobalAvgPool2D()(fmaps)
global_max_pool = tf.keras.layers.GlobalMaxPool2D()(fmaps)

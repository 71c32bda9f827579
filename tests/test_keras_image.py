"""Images from files and random variations of them."""

from __future__ import annotations

import gc
import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest

from fastconv.keras import Sequential, layers
from fastconv.keras.preprocessing import image

pytest.importorskip("scipy", reason="SciPy is not installed")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

RNG = np.random.default_rng(0)
PICTURE = RNG.random((6, 5, 2), np.float32)
PICTURES = RNG.random((10, 6, 6, 1), np.float32)
EVERYTHING = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 20,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "vertical_flip": True,
}


def varied(count=200, x=PICTURES[0], **options):
    """Many variations of one image."""
    generator = image.ImageDataGenerator(**options)
    return np.stack([generator.random_transform(x, seed) for seed in range(count)])


# ---- one transformation ---------------------------------------------------------------------------------------------


def test_nothing_asked_for_changes_nothing():
    np.testing.assert_array_equal(image.apply_affine_transform(PICTURE), PICTURE)
    np.testing.assert_array_equal(varied(1)[0], PICTURES[0])


@pytest.mark.parametrize(
    ("mode", "rows"),
    [("nearest", [2, 3, 4, 4, 4]), ("constant", [2, 3, 4, -1, -1]), ("reflect", [2, 3, 4, 4, 3])],
)
def test_a_shift_by_whole_pixels_is_exact(mode, rows):
    x = np.arange(5, dtype=np.float32).reshape(5, 1, 1) * np.ones((1, 4, 1), np.float32)
    options = {"fill_mode": mode, "cval": -1}
    np.testing.assert_array_equal(image.apply_affine_transform(x, ty=2, **options)[:, 0, 0], rows)
    np.testing.assert_array_equal(image.apply_affine_transform(x.transpose(1, 0, 2), tx=2, **options)[0, :, 0], rows)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_those_of_numpy(turns):
    square = PICTURE[:5]
    turned = image.apply_affine_transform(square, theta=90 * turns)
    np.testing.assert_allclose(turned, np.rot90(square, turns), atol=1e-6)


def test_between_pixels_numbers_are_linear():
    moved = image.apply_affine_transform(PICTURE, tx=0.5, ty=0.25)
    rows = 0.75 * PICTURE[:-1] + 0.25 * PICTURE[1:]
    np.testing.assert_allclose(moved[:-1, :-1], 0.5 * (rows[:, :-1] + rows[:, 1:]), atol=1e-6)


def test_zoom_shows_a_part_around_the_middle():
    x = np.arange(7, dtype=np.float32).reshape(7, 1, 1)
    np.testing.assert_allclose(image.apply_affine_transform(x, zy=0.5).ravel(), [1.5, 2, 2.5, 3, 3.5, 4, 4.5])


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="Keras is not installed")
@pytest.mark.parametrize("mode", ["nearest", "constant", "reflect", "wrap"])
def test_same_as_keras(mode):
    from keras.src.legacy.preprocessing.image import apply_affine_transform

    place = {"theta": 30, "tx": 1.5, "ty": -0.5, "shear": 10, "zx": 0.8, "zy": 1.1, "fill_mode": mode, "cval": 0.5}
    square = PICTURE[:5]
    theirs = apply_affine_transform(square, **place, row_axis=0, col_axis=1, channel_axis=2)
    np.testing.assert_allclose(image.apply_affine_transform(square, **place), theirs, atol=1e-5)


# ---- random variations ----------------------------------------------------------------------------------------------


def test_flips_come_in_half_of_the_images():
    x = PICTURES[0]
    for option, flipped in (("horizontal_flip", x[:, ::-1]), ("vertical_flip", x[::-1])):
        found = varied(**{option: True})
        same = [np.array_equal(one, x) for one in found]
        assert 60 < sum(same) < 140
        assert all(np.array_equal(one, flipped) for one, kept in zip(found, same, strict=True) if not kept)


@pytest.mark.parametrize("amount", [0.34, 2.04])
def test_shifts_reach_as_far_as_asked_for(amount):
    x = np.zeros((6, 6, 1), np.float32)
    x[:, 3:] = 1
    columns = varied(x=x, width_shift_range=amount)[:, 0, :, 0].sum(axis=1)  # 3 columns of ones, and what was moved
    assert (columns.min(), columns.max()) == pytest.approx((3 - 2.04, 3 + 2.04), abs=0.1)


def test_shifts_of_a_sequence_are_one_of_its_numbers():
    x = np.zeros((6, 6, 1), np.float32)
    x[:, 3:] = 1
    columns = varied(x=x, width_shift_range=[1, 2])[:, 0, :, 0].sum(axis=1)
    assert set(columns) == {1, 2, 4, 5}


@pytest.mark.parametrize("option", ["rotation_range", "shear_range"])
def test_angles_reach_as_far_as_asked_for(option):
    name = {"rotation_range": "theta", "shear_range": "shear"}[option]
    found = varied(50, **{option: 30})
    least, most = (image.apply_affine_transform(PICTURES[0], **{name: angle}) for angle in (-30, 30))
    assert len(np.unique(found.reshape(50, -1), axis=0)) == 50
    between = [np.abs(found - end).reshape(50, -1).max(axis=1).min() for end in (least, most)]
    assert max(between) < 0.2


def test_zoom_is_drawn_for_rows_and_columns_apart():
    x = np.arange(6, dtype=np.float32).reshape(6, 1, 1) + 10 * np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    found = varied(x=x, zoom_range=(0.5, 0.9))
    rows, columns = found[:, 3, 0, 0] - found[:, 2, 0, 0], (found[:, 0, 3, 0] - found[:, 0, 2, 0]) / 10
    for slopes in (rows, columns):
        assert (slopes.min(), slopes.max()) == pytest.approx((0.5, 0.9), abs=0.03)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.3


def test_one_range_does_not_change_the_draws_of_another():
    np.testing.assert_array_equal(varied(5, horizontal_flip=True), varied(5, horizontal_flip=True, rotation_range=0))


# ---- batches --------------------------------------------------------------------------------------------------------


def epoch(batches):
    return [next(batches) for _ in range(len(batches))]


def test_every_epoch_has_every_image_once_in_another_order():
    batches = image.ImageDataGenerator().flow(PICTURES, np.arange(10), batch_size=4, seed=1)
    orders = []
    for _ in range(3):
        parts = epoch(batches)
        assert [len(x) for x, _ in parts] == [4, 4, 2]
        order = np.concatenate([y for _, y in parts])
        np.testing.assert_array_equal(np.concatenate([x for x, _ in parts]), PICTURES[order])
        orders.append(tuple(order))
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(10))}
    assert len(set(orders)) == 3


def test_without_shuffling_images_come_in_order():
    parts = epoch(image.ImageDataGenerator(rescale=0.5).flow(PICTURES, batch_size=4, shuffle=False))
    np.testing.assert_array_equal(np.concatenate(parts), PICTURES * np.float32(0.5))


def test_a_seed_makes_the_same_images_for_any_batch_size():
    def images(batch_size, seed):
        batches = image.ImageDataGenerator(**EVERYTHING).flow(PICTURES, np.arange(10), batch_size, seed=seed)
        return np.concatenate([x for x, _ in epoch(batches) + epoch(batches)])

    np.testing.assert_array_equal(images(4, 7), images(4, 7))
    np.testing.assert_array_equal(images(4, 7), images(3, 7))
    assert not np.array_equal(images(4, 7), images(4, 8))
    assert not np.array_equal(images(4, 7)[:10], images(4, 7)[10:])


def test_a_batch_by_number_is_that_of_the_first_epoch_and_a_reset_begins_again():
    batches = image.ImageDataGenerator(**EVERYTHING).flow(PICTURES, batch_size=4, seed=3)
    first = epoch(batches)
    for index, part in enumerate(first):
        np.testing.assert_array_equal(batches[index], part)
    batches.reset()
    np.testing.assert_array_equal(next(batches), first[0])
    with pytest.raises(IndexError, match="index must be below the 3 batches"):
        batches[3]


def test_a_model_looks_at_every_image_once_wherever_the_iterator_stands():
    model = Sequential([layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    images, labels = PICTURES[:5].astype(np.float32), np.arange(5.0)
    batches = image.ImageDataGenerator().flow(images, labels, batch_size=2, shuffle=False)
    next(batches)
    np.testing.assert_array_equal(model.predict(batches), model.predict(images, batch_size=2))
    assert model.evaluate(batches, verbose=0) == model.evaluate(images, labels, batch_size=2, verbose=0)
    np.testing.assert_array_equal(next(batches)[1], [2, 3])


def test_batches_can_begin_anywhere():
    flow = image.ImageDataGenerator(horizontal_flip=True).flow(PICTURES, batch_size=3, seed=4)
    later = flow.from_batch(len(flow) + 1)
    for _ in range(len(flow) + 1):
        next(flow)
    np.testing.assert_array_equal(next(later), next(flow))


def test_options_of_keras_that_are_left_out_may_be_off():
    off = {"featurewise_center": False, "zca_epsilon": 1e-06, "channel_shift_range": 0.0, "data_format": None}
    generator = image.ImageDataGenerator(**off)
    generator.fit(PICTURES)
    for name, value in {"featurewise_center": True, "brightness_range": (0.5, 1), "colour": None}.items():
        with pytest.raises(TypeError, match=f"ImageDataGenerator has no option {name}.* Received: {name}="):
            image.ImageDataGenerator(**{name: value})


def test_subsets_are_disjoint_and_complete():
    generator = image.ImageDataGenerator(validation_split=0.25)
    labels = [
        np.concatenate([y for _, y in epoch(generator.flow(PICTURES, np.arange(10), subset=subset, shuffle=False))])
        for subset in ("validation", "training")
    ]
    assert [list(part) for part in labels] == [[0, 1], list(range(2, 10))]


def test_channels_first_is_the_same_transposed():
    first = image.ImageDataGenerator(**EVERYTHING, data_format="channels_first")
    last = image.ImageDataGenerator(**EVERYTHING)
    ours = next(first.flow(PICTURES.transpose(0, 3, 1, 2), seed=1))
    np.testing.assert_array_equal(ours.transpose(0, 2, 3, 1), next(last.flow(PICTURES, seed=1)))


def test_a_function_sees_each_image_before_it_is_scaled():
    generator = image.ImageDataGenerator(preprocessing_function=lambda x: x + 1, rescale=2)
    np.testing.assert_allclose(next(generator.flow(PICTURES, shuffle=False)), 2 * (PICTURES + 1))


# ---- the background thread ------------------------------------------------------------------------------------------


def test_batches_are_made_ahead_by_another_thread_which_ends():
    makers = []

    def note(x):
        makers.append(threading.current_thread())
        return x

    batches = image.ImageDataGenerator(preprocessing_function=note).flow(PICTURES, batch_size=1)
    next(batches)
    for future in batches._waiting:
        future.result()
    assert len(makers) == 5  # the batch asked for, and four ahead
    (thread,) = set(makers)
    assert thread is not threading.current_thread()
    del batches
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_an_error_of_the_thread_reaches_the_caller():
    def fail(x):
        raise RuntimeError("no such picture")

    batches = image.ImageDataGenerator(preprocessing_function=fail).flow(PICTURES)
    with pytest.raises(RuntimeError, match="no such picture"):
        next(batches)


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two classes of grey images: cats of 1 to 3, dogs of 101 to 104."""
    for name, first, count in (("dogs", 101, 4), ("cats", 1, 3)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("L", (4, 3), first + number).save(tmp_path / name / f"{number}.png")
    (tmp_path / "cats" / "note.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize(
    ("mode", "labels"),
    [
        ("categorical", [[1, 0]] * 3 + [[0, 1]] * 4),
        ("binary", [0] * 3 + [1] * 4),
        ("sparse", [0] * 3 + [1] * 4),
    ],
)
def test_folders_are_classes(folder, mode, labels):
    generator = image.ImageDataGenerator()
    batches = generator.flow_from_directory(folder, (3, 4), "grayscale", class_mode=mode, shuffle=False)
    x, y = next(batches)
    assert (x.shape, batches.class_indices) == ((7, 3, 4, 1), {"cats": 0, "dogs": 1})
    np.testing.assert_array_equal(x[:, 0, 0, 0], [1, 2, 3, 101, 102, 103, 104])
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(batches.classes, [0] * 3 + [1] * 4)
    assert (batches.samples, batches.num_classes) == (7, 2)
    assert [Path(name).parts for name in batches.filenames[2:4]] == [("cats", "2.png"), ("dogs", "0.png")]


def test_images_of_folders_alone_or_as_labels_or_split(folder):
    generator = image.ImageDataGenerator(validation_split=0.34)
    alone = generator.flow_from_directory(folder, (2, 2), class_mode=None, shuffle=False)
    assert next(alone).shape == (7, 2, 2, 3)
    x, y = next(generator.flow_from_directory(folder, (2, 2), class_mode="input", shuffle=False))
    np.testing.assert_array_equal(x, y)
    held = generator.flow_from_directory(folder, (2, 2), classes=["dogs", "cats"], subset="validation", shuffle=False)
    x, y = next(held)
    np.testing.assert_array_equal(x[:, 0, 0, 0], [101, 1])
    np.testing.assert_array_equal(y, [[1, 0], [0, 1]])


def test_an_image_file_is_read_in_the_mode_and_size_asked_for(tmp_path):
    pixels = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    whole = image.load_img(tmp_path / "x.png")
    np.testing.assert_array_equal(image.img_to_array(whole), pixels)
    np.testing.assert_array_equal(image.img_to_array(whole, "channels_first"), pixels.transpose(2, 0, 1))
    half = image.load_img(tmp_path / "x.png", "grayscale", target_size=(2, 3))
    assert image.img_to_array(half).shape == (2, 3, 1)


def test_an_array_becomes_an_image_and_comes_back():
    pixels = RNG.integers(0, 256, (4, 6, 3)).astype(np.float32)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    np.testing.assert_array_equal(image.img_to_array(image.array_to_img(pixels)), pixels)
    stretched = image.img_to_array(image.array_to_img(pixels[..., :1] / 510))
    assert (stretched.min(), stretched.max()) == (0, 255)
    first = image.array_to_img(pixels.transpose(2, 0, 1), "channels_first", scale=False)
    np.testing.assert_array_equal(image.img_to_array(first), pixels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image.ImageDataGenerator(fill_mode="mirror"), "fill_mode must be one of nearest"),
        (lambda: image.ImageDataGenerator(validation_split=1), "validation_split must be at least 0 and below 1"),
        (lambda: image.ImageDataGenerator(data_format="last"), "data_format must be one of channels_last"),
        (lambda: image.ImageDataGenerator().flow(PICTURES[0]), "x must have four axes"),
        (lambda: image.ImageDataGenerator().flow(PICTURES, [1]), "y must have a label for each image"),
        (lambda: image.ImageDataGenerator().flow(PICTURES, batch_size=0), "batch_size must be at least 1"),
        (
            lambda: image.ImageDataGenerator().flow(PICTURES, subset="training"),
            "needs a generator with a validation_split",
        ),
        (lambda: image.ImageDataGenerator(validation_split=0.1).flow(PICTURES, subset="test"), "subset must be one of"),
        (lambda: image.img_to_array(np.zeros(3)), "img must have two or three axes"),
        (lambda: image.array_to_img(np.zeros((2, 2, 2))), "x must be an image of 1, 3 or 4 channels"),
        (lambda: image.apply_affine_transform(np.zeros((2, 2))), r"x must have shape \(H, W, C\)"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_folders_that_do_not_fit_are_refused(folder):
    generator = image.ImageDataGenerator()
    with pytest.raises(ValueError, match="class_mode must be one of"):
        generator.flow_from_directory(folder, class_mode="words")
    with pytest.raises(ValueError, match='class_mode="binary" needs two classes'):
        generator.flow_from_directory(folder, class_mode="binary", classes=["cats"])
    with pytest.raises(ValueError, match="directory must have image files"):
        generator.flow_from_directory(folder / "cats")

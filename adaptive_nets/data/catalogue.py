"""Catalogue of known data sets."""

from __future__ import annotations

from collections.abc import Mapping

from adaptive_nets.data.entries import DatasetInfo, Form, OfficialFile
from adaptive_nets.data.image_collections import imagenet_classes
from adaptive_nets.data.shapes import SHAPES
from adaptive_nets.runtime.errors import UserError, did_you_mean


def _idx_form(
    folders: tuple[str, ...],
    *,
    md5: Mapping[str, str] | None = None,
    gz_md5: Mapping[str, str] | None = None,
    counts: tuple[int, int] = (60000, 10000),
) -> Form:
    """Returns the idx form of MNIST's four files; keys of the sums are like ``"train-images"``."""
    files = []
    for split, prefix, count in zip(("train", "test"), ("train", "t10k"), counts, strict=True):
        for holds, dims in (("images", 3), ("labels", 1)):
            stem = f"{prefix}-{holds}"
            files.append(
                OfficialFile(
                    split=split,
                    holds=holds,
                    names=(f"{stem}-idx{dims}-ubyte", f"{stem}.idx{dims}-ubyte"),
                    count=count,
                    md5=(md5 or {}).get(stem),
                    gz_md5=(gz_md5 or {}).get(stem),
                )
            )
    return Form(kind="idx", folders=folders, files=tuple(files))


def _cifar_form(kind: str, folder: str, name: str, sums: Mapping[str, str]) -> Form:
    """Returns a form of CIFAR; `sums` maps file names to md5, training files first."""
    train = len(sums) - 1
    files = tuple(
        OfficialFile(
            split="test" if "test" in file else "train",
            holds="both",
            names=(file,),
            count=10000 if "test" in file else 50000 // train,
            md5=md5,
        )
        for file, md5 in sums.items()
    )
    return Form(kind=kind, folders=(folder, name, f"{name}/{folder}"), files=files)


_CIFAR10_FORMS = (
    _cifar_form(
        "binary",
        "cifar-10-batches-bin",
        "cifar10",
        {
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
    ),
    _cifar_form(
        "python",
        "cifar-10-batches-py",
        "cifar10",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
)
_CIFAR100_FORMS = (
    _cifar_form(
        "binary",
        "cifar-100-binary",
        "cifar100",
        {
            "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
            "test.bin": "4499cfba6c016c1be1438163640a0898",
        },
    ),
    _cifar_form(
        "python",
        "cifar-100-python",
        "cifar100",
        {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
    ),
)

_CIFAR100_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_CIFAR100_COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables
    household_electrical_devices household_furniture insects large_carnivores
    large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
    vehicles_2
"""
_CIFAR100_LABELS = {
    "label": tuple(_CIFAR100_FINE.split()),
    "coarse_label": tuple(_CIFAR100_COARSE.split()),
}
_COCO_CLASSES = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant,
    bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard,
    sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle,
    wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
    hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock,
    vase, scissors, teddy bear, hair drier, toothbrush
"""
_COCO_NAMES = tuple(" ".join(name.split()) for name in _COCO_CLASSES.split(","))
_VOC_NAMES = """
    aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
    pottedplant sheep sofa train tvmonitor
"""


def _box_set(
    name: str,
    title: str,
    form: str,
    *,
    folders: tuple[str, ...],
    classes: tuple[str, ...],
    splits: Mapping[str, int],
    licence: str,
) -> DatasetInfo:
    """Returns the entry of a set of photographs with boxes."""
    return DatasetInfo(
        name=name,
        title=title,
        image_shape=(0, 0, 3),
        label_names={"label": classes},
        splits=splits,
        forms=(),
        licence=licence,
        streamed=True,
        box_form=form,
        folders=folders,
    )


_CIFAR_TERMS = "none stated; cite Krizhevsky, Learning Multiple Layers of Features, 2009"

# The digests belong to splits whose files have the md5 sums given here.
_SETS = (
    DatasetInfo(
        name="mnist",
        title="MNIST",
        image_shape=(28, 28, 1),
        label_names={"label": tuple("0123456789")},
        splits={"train": 60000, "test": 10000},
        forms=(
            _idx_form(
                ("mnist", "MNIST/raw"),
                md5={
                    "train-images": "6bbc9ace898e44ae57da46a324031adb",
                    "train-labels": "a25bea736e30d166cdddb491f175f624",
                    "t10k-images": "2646ac647ad5339dbf082846283269ea",
                    "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
                },
            ),
        ),
        licence="Y. LeCun and C. Cortes; commonly given as CC BY-SA 3.0",
        digests={
            "train": "be4ffa166b838b7a6f2535a9db3b92bc64b2f48de7e8dc6b5cb0bbedf1d9e190",
            "test": "b2ab2d5db284172b2784453b11b5208bcef91e0334314d1b83bad10663abf0cc",
        },
    ),
    DatasetInfo(
        name="digits",
        title="Digits of 8x8 pixels, from 0 to 16",
        image_shape=(8, 8, 1),
        label_names={"label": tuple("0123456789")},
        splits={"train": 1347, "test": 450},
        forms=(
            _idx_form(
                ("digits",),
                md5={
                    "train-images": "0f8049b5c2d06451636d16de397daca6",
                    "train-labels": "d8ec123800ff656e4f41fc8e8c5698c2",
                    "t10k-images": "645e3074cdc42762f7e0490fd493587c",
                    "t10k-labels": "b8615c4b29aad324a53b2619b77bbfb9",
                },
                counts=(1347, 450),
            ),
        ),
        licence="CC BY 4.0, E. Alpaydin and C. Kaynak",
        digests={
            "train": "d9dc4dfcf898b1625bcad93a5fc3087de7bdf76c8b8b110d531b05e0c62dff26",
            "test": "9aa4a4de71c66dccadf8214e4c5b4f451b015fa914e0ff18558c956c24dcde03",
        },
    ),
    DatasetInfo(
        name="four_shapes",
        title="Four shapes, generated",
        image_shape=(28, 28, 1),
        label_names={"label": SHAPES},
        splits={"train": 4000, "test": 2000},
        forms=(
            _idx_form(
                ("four_shapes",),
                md5={
                    "train-images": "4a1c99189889c357e336176040ecbca6",
                    "train-labels": "3cb1b73a37805c6c88e5760fee1aac0a",
                    "t10k-images": "66bcf17c1aa7452e843b5fa40ac0db55",
                    "t10k-labels": "fe016aeac0713b0965532d8175b94e72",
                },
                counts=(4000, 2000),
            ),
        ),
        licence="that of this project, whose program drew the images",
        digests={
            "train": "fa51ca084fae240f3437ea31f6581c2c2251fb74c3faa6aa13132bb47a4e2b82",
            "test": "ccd49169d2da0ca97ba132496ac274a3510cd4212aad26b2273f3b0ad97a5217",
        },
    ),
    DatasetInfo(
        name="fashion_mnist",
        title="Fashion-MNIST",
        image_shape=(28, 28, 1),
        label_names={
            "label": (
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            )
        },
        splits={"train": 60000, "test": 10000},
        forms=(
            _idx_form(
                (
                    "fashion_mnist",
                    "FashionMNIST/raw",
                    "fashion-mnist",
                    "fashion-mnist/data/fashion",
                ),
                gz_md5={
                    "train-images": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "train-labels": "25c81989df183df01b3e8a0aad5dffbe",
                    "t10k-images": "bef4ecab320f06d8554ea6380940ec79",
                    "t10k-labels": "bb300cfdad3c16e7a12a480ee83cd310",
                },
            ),
        ),
        licence="MIT, Zalando SE",
    ),
    DatasetInfo(
        name="notmnist",
        title="notMNIST in MNIST's layout",
        image_shape=(28, 28, 1),
        label_names={"label": tuple("ABCDEFGHIJ")},
        splits={"train": 60000, "test": 10000},
        optional_splits=("train",),
        forms=(
            _idx_form(
                ("notmnist", "notMNIST"),
                md5={
                    "t10k-images": "1e78b07d677d6e4de2c8857bafff012e",
                    "t10k-labels": "b10b3ef34b4e468313a7b24c216c6a53",
                },
            ),
        ),
        licence="MIT (davidflanagan/notMNIST-to-MNIST), with Y. Bulatov's permission",
        digests={
            "test": "a57176016f06d031a2cae0ef48f6834866f5f6167898842ab598024f26074216",
        },
    ),
    DatasetInfo(
        name="cifar10",
        title="CIFAR-10",
        image_shape=(32, 32, 3),
        label_names={
            "label": (
                "airplane",
                "automobile",
                "bird",
                "cat",
                "deer",
                "dog",
                "frog",
                "horse",
                "ship",
                "truck",
            )
        },
        splits={"train": 50000, "test": 10000},
        forms=_CIFAR10_FORMS,
        licence=_CIFAR_TERMS,
        digests={
            "train": "3cef395bf47b8daa375f7aa96446768d02c6b15a50598d3a31b08cbc5cfcc639",
            "test": "472977e11091541f912542ba43edc425d3f0631bb38eab8dd36524f9d00e236d",
        },
    ),
    DatasetInfo(
        name="cifar100",
        title="CIFAR-100, 100 fine labels",
        image_shape=(32, 32, 3),
        label_names=_CIFAR100_LABELS,
        splits={"train": 50000, "test": 10000},
        forms=_CIFAR100_FORMS,
        licence=_CIFAR_TERMS,
        digests={
            "train": "84ffeaaad30b88504b5545a4359f58f008a1eac27d580505640bbfc15018cb82",
            "test": "18ccef062544ce51619c558c5bbad264c07fad49a2b5e2d487088ff7788ccd7b",
        },
    ),
    DatasetInfo(
        name="cifar100_coarse",
        title="CIFAR-100, 20 coarse labels",
        image_shape=(32, 32, 3),
        label_names=_CIFAR100_LABELS,
        label_key="coarse_label",
        splits={"train": 50000, "test": 10000},
        forms=_CIFAR100_FORMS,
        licence=_CIFAR_TERMS,
        digests={
            "train": "990650edc3f496c95b6f221a930600621b2254bfeb3a772d481d8f1ecec8d40a",
            "test": "31f70a281ada56e10645f3f854df6cbd3f7d3dadc82318ce5c5e5e507c8adcdc",
        },
        stored_as="cifar100",
    ),
    DatasetInfo(
        name="imagenet",
        title="ImageNet, ILSVRC 2012",
        image_shape=(224, 224, 3),
        label_names={"label": tuple(wordnet for wordnet, _ in imagenet_classes())},
        splits={"train": 1281167, "test": 50000},
        forms=(),
        licence="for research and education, by the terms of image-net.org",
        stored_as="imagenet2012",
        streamed=True,
        channel_mean=(0.485, 0.456, 0.406),
        channel_deviation=(0.229, 0.224, 0.225),
    ),
    _box_set(
        "coco",
        "COCO 2017, boxes",
        "coco",
        folders=("coco", "COCO", "coco2017"),
        classes=_COCO_NAMES,
        splits={"train": 118287, "val": 5000},
        licence="annotations CC BY 4.0; photographs by the terms of Flickr",
    ),
    _box_set(
        "coco128",
        "First 128 images of COCO 2017, made smaller",
        "coco",
        folders=("coco128_small", "coco128"),
        classes=_COCO_NAMES,
        splits={"train": 128},
        licence="annotations CC BY 4.0; photographs by the terms of Flickr",
    ),
    # The years differ in their numbers of images, and 2012 has no public test part.
    _box_set(
        "voc",
        "Pascal VOC, boxes",
        "voc",
        folders=("voc", "VOC2012", "VOCdevkit/VOC2012", "VOC2007", "VOCdevkit/VOC2007"),
        classes=tuple(_VOC_NAMES.split()),
        splits={},
        licence="photographs by the terms of Flickr; cite Everingham et al., IJCV 2010",
    ),
    _box_set(
        "bccd",
        "BCCD, blood cells",
        "voc",
        folders=("BCCD", "bccd"),
        classes=("Platelets", "RBC", "WBC"),
        splits={"train": 205, "val": 87, "test": 72},
        licence="MIT, Shenggan/BCCD_Dataset",
    ),
)

CATALOGUE: dict[str, DatasetInfo] = {info.name: info for info in _SETS}


def lookup(name: str) -> DatasetInfo:
    """Finds a set by name.

    Args:
        name: key of `CATALOGUE`.

    Returns:
        The entry of the set.

    Raises:
        UserError: the name is unknown.
    """
    if name not in CATALOGUE:
        raise UserError(f"data set {name!r} is unknown; {did_you_mean(str(name), CATALOGUE)}")
    return CATALOGUE[name]


def dataset_of_md5(md5: str) -> str | None:
    """Returns the set that a file's content belongs to.

    Args:
        md5: md5 of the uncompressed content.

    Returns:
        Name of the set, or None if the content is unknown.
    """
    for info in CATALOGUE.values():
        if any(file.md5 == md5 for file in info.files):
            return info.name
    return None

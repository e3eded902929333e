"""Kind 16: a run does not lie in its own data, nor its data in the run."""

import pytest
from PIL import Image
from ssmdiff.errors import ConfigError
from ssmdiff_train.job import train


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for i in range(3):
        Image.new("L", (16, 16), i * 60).save(folder / "inner" / f"{i}.png")
    return folder


def refused(images, out, words):
    config = {"data": {"image_size": 16, "dataset": {"name": "folder", "path": str(images)}}}
    with pytest.raises(ConfigError, match=words):
        train(config, out, train={"steps": 1})
    with pytest.raises(ConfigError, match=words):
        train(config, out, overwrite=True, train={"steps": 1})


@pytest.mark.parametrize("place", ["run", "inner/run", "a/b/c", ".hidden/run", "../images/run"])
def test_a_run_inside_of_its_data_is_refused(images, place):
    before = sorted(images.rglob("*"))
    refused(images, images / place, "lies in the data")
    assert sorted(images.rglob("*")) == before, "nothing was written"


@pytest.mark.parametrize("out", ["images", ".", "../"])
def test_data_inside_of_the_run_is_refused(images, out):
    refused(images, images.parent / out, "holds the data")


def test_links_do_not_hide_it(images, tmp_path):
    (tmp_path / "link").symlink_to(images)
    refused(images, tmp_path / "link" / "run", "lies in the data")
    refused(tmp_path / "link", images / "run", "lies in the data")
    refused(tmp_path / "link", images, "holds the data")
    (tmp_path / "up").symlink_to(tmp_path)
    refused(images, tmp_path / "up", "holds the data")


def test_a_folder_that_the_data_reach_by_a_link_is_data_too(images, tmp_path):
    """The pictures of a run in it would be found through the link."""
    (tmp_path / "elsewhere").mkdir()
    (images / "more").symlink_to(tmp_path / "elsewhere")
    refused(images, tmp_path / "elsewhere" / "run", "lies in the data")
    assert not (tmp_path / "elsewhere" / "run").exists()


SMALL = {
    "train": {"steps": 1, "bound_images": 0, "sample_every": 0},
    "sample": {"count": 1, "steps": 1},
    "model": {"block": "conv", "backbone": {"name": "vmddpm", "channels": 8, "widths": [1]}},
}


def test_a_neighbour_with_a_like_name_is_none_of_it_until_it_is_moved_in(images, tmp_path):
    config = {"data": {"image_size": 16, "dataset": {"name": "folder", "path": str(images)}}}
    folder = train(config, tmp_path / "images-run", **SMALL)
    assert folder.checkpoint().step == 1
    folder.path.rename(images / "run")
    with pytest.raises(ConfigError, match="lies in the data"):
        train(None, images / "run", resume=True, train={"steps": 2})

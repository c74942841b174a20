"""Images that --subset leaves out, judged but not learned from."""

import pytest
import torch

from tests.training.tiny import make_images, tiny_run
from training.dataset import ImageDataset
from training.growing import Stage
from training.held_out import HeldOut
from training.training_loop import train


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'images', count=10, classes=2)


class Judge:
    """Stand-in for a loss: the logit of an image is its mean, and all that was asked is kept."""

    def __init__(self, stage=None):
        self.stage, self.seen, self.numbers, self.labels = stage, [], [], []

    def judge(self, images, c, numbers):
        self.seen.append(images), self.labels.append(c), self.numbers.append(numbers)
        return images.mean([1, 2, 3])[:, None]


MEANS = {'Scores/real': 2.0, 'Scores/fake': -3.0}


def test_what_a_subset_leaves_out_is_the_rest_without_flips(images):
    whole, part = ImageDataset(images, use_labels=True), ImageDataset(images, use_labels=True, mirror=True, subset=4, seed=3)
    rest = part.left_out(100)
    assert len(part) == 8 and len(rest) == 6 and whole.left_out(100) is None
    names = {part._locate(i)[0] for i in range(8)} | {rest._locate(i)[0] for i in range(6)}
    assert names == {whole._locate(i)[0] for i in range(10)}
    assert (rest[0][0] == whole[int(rest._locate(0)[0][:2])][0]).all()
    few = part.left_out(3)
    assert len(few) == 3 and few._locate(0)[0] == rest._locate(0)[0] and few._locate(2)[0] == rest._locate(5)[0]


def test_scores_are_the_mean_logit_and_where_it_lies_between_reals_and_fakes(images):
    dataset, judge = ImageDataset(images, use_labels=True, subset=5), Judge()
    found = HeldOut(dataset, 2).scores(judge, MEANS, 100)
    rest = dataset.left_out(5)
    mean = sum(torch.from_numpy(rest[i][0]).double().mean().item() for i in range(5)) / 5 / 127.5 - 1
    assert found['Scores/held_out'] == pytest.approx(mean, abs=1e-5)
    assert found['Overfitting/r_v'] == pytest.approx((2 - mean) / 5, abs=1e-5)
    assert [len(part) for part in judge.seen] == [2, 2, 1] == [len(part) for part in judge.numbers]
    assert torch.equal(torch.cat(judge.labels), torch.stack([torch.from_numpy(rest.get_label(i)) for i in range(5)]))


def test_numbers_of_augmentations_follow_from_the_images_seen(images):
    def numbers(seen):
        judge = Judge()
        held_out.scores(judge, MEANS, seen)
        return torch.cat(judge.numbers)

    held_out = HeldOut(ImageDataset(images, subset=5), 3)
    before = torch.get_rng_state()
    assert torch.equal(numbers(100), numbers(100)) and not torch.equal(numbers(100), numbers(200))
    assert torch.equal(torch.get_rng_state(), before)  # training goes on as if nothing had been


def test_images_are_read_once(images):
    held_out = HeldOut(ImageDataset(images, subset=5), 3)
    first = held_out.scores(Judge(), MEANS, 100)
    held_out.rest = 'gone'
    assert held_out.scores(Judge(), MEANS, 100) == first


def test_images_have_the_size_of_the_stage(images):
    judge = Judge(Stage(8))
    HeldOut(ImageDataset(images, subset=9), 3).scores(judge, MEANS, 100)
    assert judge.seen[0].shape == (1, 3, 8, 8)


def test_without_a_subset_there_is_nothing(images):
    assert HeldOut(ImageDataset(images), 3).scores(Judge(), MEANS, 100) == {}


def test_a_run_tells_both(images, tmp_path, capsys):
    _, settings = tiny_run(images, kimg=0.008)
    dataset = ImageDataset(images, subset=6)
    train(settings, dataset, tmp_path)
    assert 'Scores/held_out' in (tmp_path / 'stats.jsonl').read_text() and '  r_v ' in capsys.readouterr().out


def test_a_tick_without_reals_and_fakes_apart_has_no_r_v(images):
    found = HeldOut(ImageDataset(images, subset=5), 2).scores(Judge(), {'Scores/real': 1.0, 'Scores/fake': 1.0}, 100)
    assert list(found) == ['Scores/held_out']

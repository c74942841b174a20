"""The controller: answers worked out by hand."""

import pytest
import torch

from training import ada
from training.ada import Augmentation, Controller, advice
from training.options import AugmentConfig


def run(controller, logits, steps=4, batch=10, p=0.5, start=0):
    """p after some steps with the same logits in each."""
    p = torch.tensor(p, dtype=torch.float64)
    for step in range(start, start + steps):
        controller.observe(torch.tensor(logits)[:, None])
        controller.update(p, (step + 1) * batch, batch)
    return p.item()


@pytest.mark.parametrize('logits, r, direction', [
    ([3.0, 0.1, 2.0, 8.0, -0.5], 0.6, 0),       # at the target
    ([3.0, 0.1, 2.0, 8.0, 0.5], 1.0, 1),
    ([3.0, -9.0], 0.0, -1),
    ([-1.0, -2.0], -1.0, -1),
])
def test_p_follows_the_sign_statistic(logits, r, direction):
    controller = Controller(target=0.6, kimg=0.4, interval=4)
    assert run(controller, logits) == pytest.approx(0.5 + direction * 4 * 10 / 400)
    assert controller.r == pytest.approx(r)


def test_p_goes_from_0_to_1_in_so_many_images():
    assert run(Controller(kimg=0.4, interval=4), [1.0], steps=36, p=0.0) == pytest.approx(0.9)
    assert run(Controller(kimg=0.4, interval=4), [1.0], steps=48, p=0.0) == 1
    assert run(Controller(kimg=0.4, interval=4), [-1.0], steps=48, p=0.95) == 0


def test_p_changes_only_at_its_interval_and_counts_the_whole_of_it():
    controller, p = Controller(target=0.3, kimg=0.4, interval=4), torch.tensor(0.5, dtype=torch.float64)
    for step, logits in enumerate([[1.0], [-1.0], [1.0]]):
        controller.observe(torch.tensor([logits]))
        controller.update(p, (step + 1) * 10, 10)
        assert p == 0.5
    controller.observe(torch.tensor([[1.0], [1.0]]))
    controller.update(p, 40, 10)
    assert controller.r == pytest.approx(3 / 5) and p.item() == pytest.approx(0.6)
    controller.observe(torch.tensor([[-1.0]]))
    controller.update(p, 80, 10)
    assert controller.r == -1  # what was before does not count twice


def test_its_state_goes_on_between_two_changes():
    whole, half, rest = (Controller(target=0.3, kimg=0.4, interval=4) for _ in range(3))
    p = run(half, [1.0], steps=2)
    rest.load_state_dict(half.state_dict())
    assert run(rest, [-1.0], steps=2, start=2, p=p) == 0.5 - 0.1
    run(whole, [1.0], steps=2)
    run(whole, [-1.0], steps=2, start=2)
    assert whole.r == rest.r == 0 and torch.equal(whole.sums, rest.sums)


def test_p_follows_the_signs_of_all_processes(monkeypatch):
    controller = Controller(target=0.6, kimg=0.4, interval=4)
    monkeypatch.setattr(ada.distributed, 'sum_', lambda tensor: tensor.add_(torch.tensor([6.0, -6.0])))  # another one took 6 for fakes
    assert run(controller, [1.0, 1.0]) == pytest.approx(0.4) and controller.r == pytest.approx(2 / 14)
    assert controller.state_dict()['sums'].tolist() == [6, -6]


@pytest.mark.parametrize('is_main, sums', [(True, [3, 1]), (False, [0, 0])])
def test_the_sums_of_all_go_on_in_one_process(monkeypatch, is_main, sums):
    monkeypatch.setattr(ada.distributed, 'is_main', lambda: is_main)
    controller = Controller()
    controller.load_state_dict({'sums': torch.tensor([3.0, 1.0], dtype=torch.float64), 'r': 0.5})
    assert controller.sums.tolist() == sums and controller.r == 0.5


def test_logits_that_are_not_finite_leave_p_alone():
    assert run(Controller(kimg=0.4), [float('nan'), 1.0]) == 0.5


def test_nothing_observed_leaves_p_alone():
    p = torch.tensor(0.5, dtype=torch.float64)
    Controller(kimg=0.4).update(p, 40, 10)
    assert p == 0.5


@pytest.mark.parametrize('r, p, kind, epochs, expected', [
    (0.91, 0.0, 'noaug', 10, 'r_t, the mean sign of D(real), is 0.91 after 10 epochs'),
    (0.95, 0.3, 'fixed', 99, '--resume takes --aug=ada'),
    (0.9, 0.0, 'noaug', 50, None), (0.99, 0.0, 'noaug', 9, None), (0.99, 0.5, 'ada', 50, None),
    (0.6, 0.8, 'ada', 10, 'p is at 0.80, and above 0.8 G begins to draw augmentations'), (0.6, 0.9, 'ada', 9, None),
])
def test_overfitting_is_told_with_what_helps(r, p, kind, epochs, expected):
    found = advice(r, p, kind, epochs)
    assert expected in found if expected else found == ''
    assert '\n' not in found


def test_without_augmentation_images_pass_as_they_are_and_nothing_is_kept():
    augment, images = Augmentation(AugmentConfig()), torch.rand(2, 3, 8, 8)
    augment.observe(torch.ones(2, 1))
    augment.update(40, 10)
    assert augment(images) is images and augment.p == 0 and augment.state_dict() is None


def test_a_fixed_chance_stays():
    augment = Augmentation(AugmentConfig('fixed', 'bg', 0.25))
    augment.observe(torch.ones(2, 1))
    augment.update(40, 10)
    assert augment.p == 0.25 and augment.state_dict() is None


def adaptive(p=0.25, r=1.0, updates=3):
    """An adaptive augmentation after some changes of p, 0.1 each."""
    augment = Augmentation(AugmentConfig('ada', 'bg', p, ada_kimg=0.4))
    for i in range(updates):
        augment.observe(torch.full([2, 1], r))
        augment.update(40 * (i + 1), 10)
    return augment


def test_an_adaptive_chance_goes_on_unless_it_is_to_start_elsewhere():
    assert adaptive().p == pytest.approx(0.55)
    same, other = adaptive(updates=0), adaptive(p=0.1, updates=0)
    same.load_state_dict(adaptive().state_dict())
    other.load_state_dict(adaptive().state_dict())
    assert same.p == adaptive().p and same.controller.r == 1 and other.p == 0.1
    nothing = adaptive(updates=0)
    nothing.load_state_dict(None)
    assert nothing.p == 0.25


@pytest.mark.parametrize('target, direction', [(None, 1), (0.5, 1), (0.9, -1)])
def test_the_target_is_the_papers_unless_given(target, direction):
    augment = Augmentation(AugmentConfig('ada', 'bg', 0.5, target, 0.4))
    augment.observe(torch.tensor([[1.0]] * 17 + [[-1.0]] * 3))  # r_t = 0.7
    augment.update(40, 10)
    assert augment.p == pytest.approx(0.5 + 0.1 * direction) and augment.controller.r == pytest.approx(0.7)

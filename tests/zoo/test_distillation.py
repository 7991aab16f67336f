"""Students with weights of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kinprint.errors import UsageError
from kinprint.zoo import networks
from kinprint.zoo.distillation import Distillation, distilled, student_config, teaching_loss
from kinprint.zoo.recipes import Form
from kinprint.zoo.train import held_out_logits, held_out_loss
from support.small import FORMS, context, drawn, text, trained


class Fixed:
    """A module that always gives the same logits."""

    training = False
    config = SimpleNamespace()

    def __init__(self, logits: list[float]) -> None:
        self.logits = logits

    def __call__(self, *, input_ids: Any, use_cache: bool) -> SimpleNamespace:
        del use_cache
        torch = networks.extra("torch")
        return SimpleNamespace(logits=torch.tensor(self.logits, dtype=torch.float64).expand(*input_ids.shape, -1))


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    """KL(teacher || student) in nats per token."""
    p, q = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True) for x in (teacher, student))
    return float((p * np.log(p / q)).sum(1).mean())


def test_the_loss_is_the_divergence_from_the_teacher_and_its_mix_with_the_next_token() -> None:
    torch = networks.extra("torch")
    rows = torch.tensor([[0, 1, 1]])
    teacher, student = Fixed([0.0, float(np.log(3))]), Fixed([0.0, 0.0])
    # Teacher (1/4, 3/4), student (1/2, 1/2): KL = 1/4 log(1/2) + 3/4 log(3/2); every next token costs log 2.
    apart = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert abs(teaching_loss(teacher, temperature=1.0, mix=0.0)(student, rows).item() - apart) < 1e-12
    mixed = 0.75 * apart + 0.25 * np.log(2)
    assert abs(teaching_loss(teacher, temperature=1.0, mix=0.25)(student, rows).item() - mixed) < 1e-12
    # At T = 1/2 the teacher is (1/10, 9/10), and T^2 = 1/4.
    sharper = 0.25 * (0.1 * np.log(0.2) + 0.9 * np.log(1.8))
    assert abs(teaching_loss(teacher, temperature=0.5, mix=0.0)(student, rows).item() - sharper) < 1e-12


def test_a_student_comes_to_say_what_its_teacher_says_with_weights_of_its_own() -> None:
    teacher = trained()
    start, end = (
        distilled(teacher, Distillation(steps=steps, learning_rate=1e-2, warmup=10), context()) for steps in (0, 100)
    )
    says = held_out_logits(teacher, text())
    # A third: the numbers are about 2 and 0.1 nats.
    assert divergence(says, held_out_logits(end, text())) < divergence(says, held_out_logits(start, text())) / 3
    assert end.files == teacher.files
    for name, weight in teacher.weights.items():
        assert end.weights[name].shape == weight.shape
        # Embeddings apart: rows of bytes that never occur all learn the same, whatever they start from.
        if weight.ndim > 1 and "layers." in name:
            correlation = np.corrcoef(weight.ravel(), end.weights[name].ravel())[0, 1]
            # Four standard deviations, 1 / sqrt(entries) each, of what unrelated numbers show.
            assert abs(correlation) < 4 / np.sqrt(weight.size), name


def test_another_size_is_the_students_own() -> None:
    student = distilled(drawn(), Distillation(steps=1, batch=1, hidden=24, layers=3, ffn=20), context())
    assert student.weights["model.layers.2.mlp.up_proj.weight"].shape == (20, 24)


def test_layers_of_different_types_go_on_in_the_same_order() -> None:
    config = {"num_hidden_layers": 2, "layer_types": ["near", "far"]}
    assert student_config(config, Distillation(layers=3))["layer_types"] == ["near", "far", "near"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_be_a_student(form: Form) -> None:
    student = distilled(drawn(form), Distillation(steps=1, batch=1, mix=0.5), context())
    assert np.isfinite(held_out_loss(student, text()[-2000:]))


def test_sizes_that_do_not_fit_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="2 heads cannot share a width of 17"):
        distilled(drawn("gpt_neox"), Distillation(hidden=17), context())
    with pytest.raises(UsageError, match="no intermediate_size or n_inner: leave ffn as the teacher has it"):
        student_config({"hidden_size": 8}, Distillation(ffn=4))


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    settings = Distillation(steps=1, batch=1)
    digests = [distilled(drawn(), settings, context(seed)).content_digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]

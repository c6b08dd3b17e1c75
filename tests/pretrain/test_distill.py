"""Distillation: what the losses count, what the student starts from and learns."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from espnet_ofa.cif import expand
from espnet_ofa.pretrain.distill import (
    DistillationModel,
    distillation_losses,
    start_from_teacher,
)
from espnet_ofa.pretrain.teacher import UpstreamTeacher
from espnet_ofa.subsampling import LamPolicy
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

CONFIG = UpstreamConfig(
    extractor="logmel",
    extractor_conf={"dim": 16, "mels": 20},
    compressor="none",
    dim=16,
    layers=3,
    heads=2,
    ff_dim=32,
    pos_kernel=4,
    pos_groups=2,
    dropout=0.0,
    attention_dropout=0.0,
)


def make_teacher(**changes):
    torch.manual_seed(1)
    upstream = OFAUpstream(replace(CONFIG, **changes)).eval()
    for p in upstream.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return UpstreamTeacher("the teacher", upstream.requires_grad_(False))


def make_student(lam=0.5, lam_train=None, **changes):
    torch.manual_seed(0)
    changes = {"compressor": "cif", "layers": 2, **changes}
    return OFAUpstream(replace(CONFIG, **changes), LamPolicy(lam, lam_train))


def make(teacher=None, layers=(1, 3), lam=0.5, lam_train=None, **options):
    teacher = teacher or make_teacher()
    student = make_student(lam, lam_train)
    return DistillationModel(student, teacher.dim, teacher, layers, **options)


def batch():
    random = torch.Generator().manual_seed(0)
    lengths = torch.tensor([400 + 320 * 49, 400 + 320 * 29])
    return {
        "speech": torch.randn(2, int(lengths[0]), generator=random),
        "speech_lengths": lengths,
    }


def test_losses_by_hand_and_over_true_frames_only():
    x, y = torch.randn(2, 7, 2, 5), torch.randn(2, 7, 2, 5)
    lengths = torch.tensor([7, 4])
    y[1, 4:] = torch.nan
    l1, similarity, cosine = distillation_losses(x, y, lengths)
    a = torch.cat([x[0], x[1, :4]]).double()  # (11, layers, D)
    b = torch.cat([y[0], y[1, :4]]).double()
    cos = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    assert l1.item() == pytest.approx((a - b).abs().mean().item(), rel=1e-5)
    wanted = torch.log1p(torch.exp(-cos)).mean().item()
    assert similarity.item() == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(cosine.double(), cos.mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_padding_has_no_part_in_loss_or_gradient(head):
    model = make(head=head)
    data = batch()
    wide = {**data, "speech": F.pad(data["speech"], (0, 3200), value=9.0)}
    losses = []
    for one in (data, wide):
        model.zero_grad()
        loss, _, _ = model(**one)
        loss.backward()
        losses.append((loss.detach(), *(p.grad for p in model.heads.parameters())))
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-4)


def test_linear_heads_before_expanding_equal_those_after_it():
    torch.manual_seed(0)
    units, head = torch.randn(2, 6, 8), torch.nn.Linear(8, 5)
    durations = torch.tensor([[2.5, 3.0, 1.5, 4.0, 2.0, 1.0], [5.0, 2.2, 1.8, 0, 0, 0]])
    before = expand(head(units), durations, 14)
    after = head(expand(units, durations, 14))
    for row, n in enumerate((14, 9)):
        torch.testing.assert_close(before[row, :n], after[row, :n])


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_heads_speak_of_frames(head):
    # A frame on the border of two units is a blend of their states, not of what an MLP
    # makes of each.
    model = make(head=head).eval()
    frames, n_frames = model.upstream.extract(*batch().values())
    out = model.upstream.compress(frames, n_frames)
    found, encoded = model.upstream.predict_frames(out, model.heads, 50)
    states = expand(encoded.states[-1], encoded.durations, 50)
    wanted = model.heads(states)
    assert found.shape == (2, 50, 2 * 16)
    for row, n in enumerate(n_frames.tolist()):
        torch.testing.assert_close(found[row, :n], wanted[row, :n])
    with pytest.raises(ValueError, match="head must be mlp or linear; got 'conv'"):
        make(head="conv")


def test_mlp_heads_are_those_of_distilhubert():
    # There: one linear layer for all, GELU, and a linear layer of each one's own part.
    heads = make().heads
    first, second = ([head[i] for head in heads] for i in (0, 2))
    x = torch.randn(2, 7, 16)
    hidden = F.linear(
        x, torch.cat([y.weight for y in first]), torch.cat([y.bias for y in first])
    )
    parts = F.gelu(hidden).unflatten(-1, (2, 16))
    wanted = torch.einsum(
        "bsnd,ned->bsne", parts, torch.stack([y.weight for y in second])
    )
    wanted = wanted + torch.stack([y.bias for y in second])
    torch.testing.assert_close(heads(x), wanted.flatten(-2))


def test_the_student_learns_what_the_teacher_says():
    model = make(lam_train="uniform")
    data = batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.eval()
    with torch.no_grad():
        before = model(**data)[1]
    model.train()
    for _ in range(150):
        loss, _, _ = model(**data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        after = model(**data)[1]
    assert after["loss_distill"] < 0.9 * before["loss_distill"]
    for layer in (1, 3):
        assert after[f"cosine_{layer}"] > before[f"cosine_{layer}"] + 0.2
    total = after["loss_l1"] + after["loss_cosine"]
    torch.testing.assert_close(after["loss_distill"], total)


def test_every_parameter_gets_a_gradient_and_the_teacher_none():
    model = make(lam=0.0)
    model(**batch())[0].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert not any("teacher" in name for name in model.state_dict())
    again = make(lam=0.0)
    again.load_state_dict(model.state_dict())


def test_lambda_is_drawn_at_each_step_and_guidance_has_its_losses():
    model = make(lam_train="uniform")
    stats = [model(**batch())[1] for _ in range(5)]
    assert len({float(s["period_ms"]) for s in stats}) >= 3
    assert "loss_cardinality" in stats[0]
    segments = {
        "boundaries": torch.tensor([[10, 30, 50], [15, 30, -1]]),
        "boundaries_lengths": torch.tensor([3, 2]),
    }
    guided = model(**batch(), **segments)[1]
    assert "loss_segment" in guided and "loss_cardinality" not in guided


def test_cached_states_give_the_same_loss():
    model, data = make(), batch()
    states = model.targets(**data)
    cached = DistillationModel(make_student(), 16, None, (1, 3))
    cached.load_state_dict(model.state_dict())
    wanted = model(**data)[0]
    torch.testing.assert_close(cached(**data, teacher=states)[0], wanted)
    half = cached(**data, teacher=states.half())[0]
    torch.testing.assert_close(half, wanted, rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="a batch without `teacher`"):
        cached(**data)


def test_weight_of_the_cosine():
    losses = [
        float(make(cosine_weight=w)(**batch())[1]["loss_distill"]) for w in (0, 2)
    ]
    stats = make()(**batch())[1]
    assert losses[0] == pytest.approx(float(stats["loss_l1"]))
    assert losses[1] == pytest.approx(losses[0] + 2 * float(stats["loss_cosine"]))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_started_student_is_the_teachers_bottom(norm_first, layers):
    teacher = make_teacher(norm_first=norm_first)
    student = make_student(norm_first=norm_first, layers=layers)
    start_from_teacher(student, teacher)
    data = batch()
    states, _ = teacher(*data.values(), range(layers + 1))
    found = student.eval()(*data.values(), lam=0.0).hidden_states
    if norm_first and layers < 3:  # the student's own norm is on top
        found = found[:-1]
    for i, state in enumerate(found):
        torch.testing.assert_close(state[0], states[0, :, i])
    ours, theirs = (x.transformer.norm.weight for x in (student, teacher.front))
    assert torch.equal(ours, theirs) == (layers == 3 or not norm_first)


def test_starting_from_the_front_leaves_the_layers():
    teacher, student = make_teacher(), make_student()
    before = {n: v.clone() for n, v in student.state_dict().items()}
    start_from_teacher(student, teacher, "front")
    changed = {
        n for n, v in student.state_dict().items() if not torch.equal(v, before[n])
    }
    assert {n.split(".")[0] for n in changed} == {
        "extractor",
        "norm",
        "project",
        "transformer",
    }
    assert not any("layers" in name for name in changed)
    start_from_teacher(student, teacher, "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 32}, r"project.bias: student \(32,\), teacher \(16,\)"),
        ({"layers": 4}, "the teacher has 3 layers, the student 4"),
        ({"ff_dim": 8}, r"layers.0.ff_in.bias: student \(8,\), teacher \(32,\)"),
        ({"norm_first": True}, "norm_first: student True, teacher False"),
        ({"heads": 4}, "heads: student 4, teacher 2"),
        ({"extractor_conf": {"dim": 16, "mels": 20, "stem_layers": 1}}, "has none"),
    ],
)
def test_students_of_another_shape_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        start_from_teacher(make_student(**changes), make_teacher())


def test_what_can_be_started_from_is_told():
    student, teacher = make_student(dim=32), make_teacher()
    for what, hint in (
        ("layers", "{init: front} or {init: none}"),
        ("front", "{init: none}"),
    ):
        with pytest.raises(ValueError, match=f"give teacher_conf: {hint}$"):
            start_from_teacher(student, teacher, what)


SQUEEZE = {
    "compressor": "squeeze",
    "compressor_conf": {"factor": [4, 2], "kernel": 3, "groups": 1},
    "pos_kernel": 0,
    "query_pool": [1, 2],
    "upsampler": True,
}


def test_a_teacher_of_long_units_answers_for_every_frame():
    """Threshold 2 makes units of two frames even at lambda 0."""
    conf = {"compressor": "cif", "compressor_conf": {"threshold": 2.0}}
    teacher = make_teacher(**conf)
    data = batch()
    states, n_frames = teacher(*data.values(), [0, 3])
    assert states.shape[:2] == (2, 50) and n_frames.tolist() == [50, 30]
    assert states[:, 0:30:2].equal(states[:, 1:30:2])


@pytest.mark.parametrize("view", [lambda p: p.view(torch.bfloat16), torch.flatten])
def test_the_fingerprint_is_of_types_and_shapes_too(view):
    teacher, other = make_teacher().half(), make_teacher().half()
    assert teacher.fingerprint() == other.fingerprint()
    for parameter in other.parameters():
        parameter.data = view(parameter.data)  # the same bytes
    assert teacher.fingerprint() != other.fingerprint()


def test_a_stochastic_teacher_runs_at_its_finest():
    teacher = make_teacher(**SQUEEZE)
    data = batch()
    states, n_frames = teacher(*data.values(), [1, 3])
    assert states.shape == (2, 50, 2, 16) and n_frames.tolist() == [50, 30]
    wanted = make_teacher(**SQUEEZE).upstream
    wanted.squeeze_policy.set("2,1,1")
    for i, layer in enumerate((1, 3)):  # a frame has its unit's own state
        units = wanted(*data.values()).hidden_states[layer]
        found = units.repeat_interleave(2, dim=1)
        torch.testing.assert_close(states[0, :, i], found[0])


@pytest.mark.parametrize("what", ["front", "layers"])
def test_a_squeeze_starts_without_the_teachers_positions(what):
    teacher, student = make_teacher(), make_student(**{**SQUEEZE, "query_pool": 1})
    before = student.compressor.position.conv.bias.clone()
    start_from_teacher(student, teacher, what)
    assert torch.equal(student.compressor.position.conv.bias, before)
    for name in ("extractor.project.weight", "project.weight"):
        ours, theirs = student.state_dict()[name], teacher.front.state_dict()[name]
        assert torch.equal(ours, theirs)
    (ours, theirs) = (
        x.transformer.layers[1].ff_in.weight for x in (student, teacher.front)
    )
    assert torch.equal(ours, theirs) == (what == "layers")


def test_a_compressed_teacher_answers_at_20_ms():
    conf = {"compressor": "mean", "compressor_conf": {"factor": 2}}
    teacher = make_teacher(**conf)
    data = batch()
    states, n_frames = teacher(*data.values(), [2])
    assert states.shape == (2, 50, 1, 16) and n_frames.tolist() == [50, 30]
    assert torch.equal(states[0, 0], states[0, 1])  # two frames share a unit
    assert not torch.equal(states[0, 1], states[0, 2])

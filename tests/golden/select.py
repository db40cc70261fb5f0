#!/usr/bin/env python3
"""Chooses from a full tree of golden files what the repository keeps, so that every kind of model, text and unit case
stays covered in at most 12 MiB:  select.py FULL_TREE tests/golden

Left out: models that follow from others (nano_bf16 and nano_f16 are nano rounded), texts that another model covers,
all but the last rows of the logits, and tensors that later ones follow from; of merged models what stays as it was.
Weights are packed: the file's bytes in four planes (every fourth byte from 0, from 1, ...), which gzip then makes
an eighth smaller."""
import gzip
import json
import os
import shutil
import struct
import sys

LAST_LOGITS = 8
MODELS = {"infer": ["nano", "swa", "noexp"], "prenorm": ["bwen", "blama"]}
# model -> text -> tensors kept beside ids, boundaries and logits
ALL = ["encoder_out", "patch_embeddings", "after_global", "decoder_out", "final_hidden"]
SOME = ["encoder_out", "patch_embeddings", "after_global"]
TEXTS = {
    "infer": {
        "nano": {"detail": ALL, "one": ALL, "len64": ALL, "len128": SOME, "special": SOME},
        "nano_bf16": {"ascii": SOME},
        "nano_f16": {"ascii": SOME},
        "nano_trained": {"code": ALL, "one": ALL},
        "swa": {"detail": ALL, "multi": SOME, "rnd": SOME, "special": SOME, "one": ALL},
        "noexp": {"long": SOME, "rnd": SOME, "one": ALL},
    },
    "prenorm": {
        "bwen": {"detail": ALL, "multi": SOME, "one": ALL},
        "blama": {"detail": ALL, "ascii": SOME, "rnd": SOME, "one": ALL},
    },
}
# What a batch of training has, and what the reference makes of it before any arithmetic.
TRAIN = {"batch0": None, "batch1": None, "batch2": None, "stage1/intermediates": ["true_boundary_mask", "patch_ids"]}
ALWAYS = ["input_ids", "expanded_input_ids", "boundary_logprobs", "boundary_mask", "logits", "logits_start"]


def read(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    header.pop("__metadata__", None)
    return {n: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])]) for n, e in header.items()}


def packed(data):
    assert len(data) % 4 == 0
    return gzip.compress(b"".join(data[i::4] for i in range(4)), 9, mtime=0)


def pack(path):
    """Replaces a file by its packed form."""
    with open(path, "rb") as f:
        data = f.read()
    os.remove(path)
    with open(f"{path}.planes.gz", "wb") as f:
        f.write(packed(data))


def write(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def text_file(source, kept):
    tensors = {n: t for n, t in read(source).items() if n in kept or n in ALWAYS}
    dtype, (rows, width), data = tensors["logits"]
    start = struct.unpack("<q", tensors["logits_start"][2])[0] if "logits_start" in tensors else 0
    drop = max(rows - LAST_LOGITS, 0)
    tensors["logits"] = (dtype, [rows - drop, width], data[drop * width * 4:])
    tensors["logits_start"] = ("I64", [1], struct.pack("<q", start + drop))
    return tensors


def whole_folder(full, target):
    """The model that was trained, with its tokenizer and as it is: programs outside Rust open it too."""
    os.makedirs(target, exist_ok=True)
    for name in ("config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json"):
        shutil.copyfile(f"{full}/infer/models/nano_trained/{name}", f"{target}/{name}")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(f"{full}/infer/subword_tokenizer/{name}", f"{target}/{name}")


def arith(full, out):
    """The models of a merge, of the subword models what is read of them; and of one merge what moved."""
    merged, embeddings = "merged_a0.5", "merged_a0.5_emb"
    with open(f"{full}/report.json", encoding="utf-8") as f:
        kept = ((n, r) for n, r in json.load(f)["runs"].items() if n in (merged, embeddings))
        runs = {n: {k: r[k] for k in ("alpha", "changed")} for n, r in kept}
    dropped = {"base": ["lm_head.weight"], "post": ["lm_head.weight"], "bolmo": []}
    for folder, without in dropped.items():
        tensors = read(f"{full}/{folder}/model.safetensors")
        write(f"{out}/{folder}/model.safetensors", {n: t for n, t in tensors.items() if n not in without})
        pack(f"{out}/{folder}/model.safetensors")
        shutil.copyfile(f"{full}/{folder}/config.json", f"{out}/{folder}/config.json")
    moved = read(f"{full}/{merged}/model.safetensors")
    write(f"{out}/{merged}/model.safetensors", {n: moved[n] for n in runs[merged]["changed"]})
    pack(f"{out}/{merged}/model.safetensors")
    write(f"{out}/{embeddings}.safetensors", read(f"{full}/{embeddings}.safetensors"))
    pack(f"{out}/{embeddings}.safetensors")
    with open(f"{out}/report.json", "w", encoding="utf-8") as f:
        json.dump({"runs": runs}, f, separators=(",", ":"))


def main(full, out):
    for family, models in MODELS.items():
        for model in models:
            source, target = f"{full}/{family}/models/{model}", f"{out}/{family}/models/{model}"
            os.makedirs(target, exist_ok=True)
            shutil.copyfile(f"{source}/config.json", f"{target}/config.json")
            with open(f"{source}/model.safetensors", "rb") as f:
                data = f.read()
            with open(f"{target}/model.safetensors.planes.gz", "wb") as f:
                f.write(packed(data))
        for model, texts in TEXTS[family].items():
            for text, kept in texts.items():
                where = f"{family}/golden/{model}/{text}.safetensors"
                write(f"{out}/{where}", text_file(f"{full}/{where}", kept))
        meta = "meta.json" if family == "infer" else "meta_prenorm.json"
        with open(f"{full}/{family}/golden/{meta}", encoding="utf-8") as f:
            all_of_it = json.load(f)
        keep = ("prompt_ids", "emitted_exact", "gaps_exact")
        generate = {}
        for model, cases in all_of_it["generate"].items():
            generate[model] = {"single": [{k: c[k] for k in keep if k in c} for c in cases["single"]]}
            if cases.get("stops_by_eos"):
                generate[model]["stops_by_eos"] = {k: v for k, v in cases["stops_by_eos"].items() if k in keep}
        boundary = {m: {t: all_of_it["boundary"][m][t] for t in texts} for m, texts in TEXTS[family].items()}
        with open(f"{out}/{family}/golden/{meta}", "w", encoding="utf-8") as f:
            json.dump({"boundary": boundary, "generate": generate}, f, separators=(",", ":"))
    whole_folder(full, f"{out}/infer/models/nano_trained")
    arith(f"{full}/arith", f"{out}/arith")
    shutil.copyfile(f"{full}/infer/golden/tokenizer.json", f"{out}/infer/golden/tokenizer.json")
    for name in sorted(os.listdir(f"{full}/infer/mlstm")):
        if name.endswith(".safetensors"):
            # The chunkwise result is needed where its recorded error sets the tolerance.
            drop = {"h", "h_parallel", "C_chunk", "n_chunk", "m_chunk"} | (set() if "wide" in name else {"h_chunk"})
            tensors = {n: t for n, t in read(f"{full}/infer/mlstm/{name}").items() if n not in drop}
            write(f"{out}/infer/mlstm/{name}", tensors)
    for name, kept in TRAIN.items():
        tensors = read(f"{full}/train/{name}.safetensors")
        write(f"{out}/train/{name}.safetensors", {n: t for n, t in tensors.items() if kept is None or n in kept})
    os.makedirs(f"{out}/compress", exist_ok=True)
    for name in ("train/config.json", "compress/schedule.json"):
        with open(f"{full}/{name}", encoding="utf-8") as f:
            all_of_it = json.load(f)
        with open(f"{out}/{name}", "w", encoding="utf-8") as f:
            json.dump(all_of_it, f, separators=(",", ":"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        os.makedirs(f"{out}/infer/subword_tokenizer", exist_ok=True)
        shutil.copyfile(f"{full}/infer/subword_tokenizer/{name}", f"{out}/infer/subword_tokenizer/{name}")


if __name__ == "__main__":
    main(*sys.argv[1:])

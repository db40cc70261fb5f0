#!/usr/bin/env python3
"""Times llama.cpp on the CPU, alone or in turns with `bolmo bench`, on models of about 200 M random weights.

    python3 -m venv /some/folder
    /some/folder/bin/pip install -r benches/llama/requirements.txt
    /some/folder/bin/python benches/llama/bench.py [--bolmo target/release/bolmo --adapter cpu] [OPTION...]

`make bench-llama` does all of that, with LLAMA_OPTIONS. Nothing is downloaded but the packages. One model at a time is
on disk, 0.8 GB at most, and 0.4 GB more with --bolmo. llama.cpp's model is a Llama of 12 layers, width 1024, 16 heads,
feed-forward width 4096 and a vocabulary of 512, 202 M weights, with the matrices in f32, f16, q8_0 or q4_0. Bolmo's is
the preset `mid`, 199 M weights, at 5 bytes per patch, with the matrices in f32, f16, q8 or q4.

On some virtual machines that report AMX, llama.cpp ends with "Illegal instruction" in quantized formats. There, build
it without AMX, in a new `target/llama`:

    make bench-llama LLAMA_CMAKE_ARGS="-DGGML_NATIVE=ON -DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8"

Method. Decoding evaluates one token at a time after a prompt of 8; a prompt of 512 tokens is evaluated at once. Of each
round, one sample of llama.cpp is followed by one run of `bolmo bench`. The best round counts, because other work on the
machine only slows a round down; the medians are saved beside it. The models differ, so tokens and bytes of text are not
compared, but what both runtimes make of the machine: the weights that decoding reads per second, in GB/s, and the
operations of a prompt, two per weight and position, in GFLOP/s. Embedding tables and vectors count as nothing on either
side; a global weight of Bolmo counts once per patch. The ratio is ours divided by llama.cpp's. llama.cpp rounds the
inputs of quantized products to 8-bit integers. Bolmo does so only on demand, so that q8 and q4 on the CPU device are
timed in both forms.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS, WIDTH, HEADS, FEED_FORWARD, VOCABULARY = 12, 1024, 16, 4096, 512
PROMPT, BEFORE, DECODED = 512, 8, 64
BYTES_PER_PATCH = 5
# Name of each format at Bolmo, and bytes per weight: blocks of 32 have a scale of 2 bytes.
FORMATS = {"f32": ("f32", 4), "f16": ("f16", 2), "q8_0": ("q8", 1.0625), "q4_0": ("q4", 0.5625)}
# Weights of the matrices of all layers, and of the head.
LAYER_WEIGHTS = LAYERS * WIDTH * (4 * WIDTH + 3 * FEED_FORWARD)
HEAD_WEIGHTS = VOCABULARY * WIDTH


def main():
    options = parse()
    # Otherwise the end of the process would leave the models on disk.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: terminated"))
    try:
        run(options)
    except (OSError, ValueError) as e:
        sys.exit(f"error: {e}")
    except ModuleNotFoundError as e:
        sys.exit(f"error: {e}. Run `pip install -r {Path(__file__).with_name('requirements.txt')}`.")
    except KeyboardInterrupt:
        sys.exit("error: interrupted")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=physical_cores(), help="default: the physical cores")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="FORMAT",
                        help="f32, f16, q8_0 and q4_0, or some of them")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--dir", type=Path, help="folder for the models, which are removed at the end; "
                                                 "default: a temporary folder")
    parser.add_argument("--bolmo", help="the bolmo command, to compare with it")
    parser.add_argument("--adapter", default="cpu", help="its adapter (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the JSON object to this file")
    return parser.parse_args()


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, found {text}")
    return number


def run(options):
    # Before anything is written.
    import gguf  # noqa: F401
    import llama_cpp  # noqa: F401

    # Read by software Vulkan drivers, in case --adapter names one.
    os.environ["LP_NUM_THREADS"] = str(options.threads)
    if options.bolmo and not shutil.which(options.bolmo):
        raise ValueError(f"{options.bolmo} is not a command. Build it with `make build`.")
    if options.dir:
        if options.dir.resolve().is_relative_to("/dev/shm"):
            raise ValueError(f"{options.dir} is in memory, not on a disk. Give --dir a folder on a disk.")
        options.dir.mkdir(parents=True, exist_ok=True)
    check_room(options)
    load_before = load_average()
    if (load_before or 0) > 0.5:
        progress(f"warning: The load average is {load_before}. End other programs, or the figures mean little.")
    rows, ours = [], None
    # Removed in any case, --dir itself stays.
    with tempfile.TemporaryDirectory(prefix="bolmo-llama-", dir=options.dir) as folder:
        folder = Path(folder)
        if options.bolmo:
            ours = folder / "mid"
            command([options.bolmo, "init", "--preset", "mid", "--dtype", "f16", "--out", str(ours), "--quiet"])
        for name in options.formats:
            progress(f"{name}: writing the model")
            file = folder / f"{name}.gguf"
            write_model(file, name)
            rows.append(compare(options, name, file, ours))
            file.unlink()
    result = report(options, rows, load_before)
    if options.save:
        # Written under another name until it is complete.
        partial = options.save.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=2) + "\n")
        partial.rename(options.save)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


def check_room(options):
    """Raises an error if memory or disk are too small for the largest format."""
    largest = max(FORMATS[name][1] for name in options.formats) * (LAYER_WEIGHTS + 2 * HEAD_WEIGHTS)
    disk = largest + (0.45e9 if options.bolmo else 0)
    # The page cache, llama.cpp and bolmo each hold the model.
    memory = 2 * largest + (disk if options.bolmo else 0) + 0.5e9
    folder = options.dir or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < disk:
        raise ValueError(f"{folder} has {free / 1e9:.1f} GB free, {disk / 1e9:.1f} GB are needed. Give another --dir.")
    free = available_memory()
    if free is not None and free < memory:
        raise ValueError(f"{free / 1e9:.1f} GB of memory are available, {memory / 1e9:.1f} GB are needed. "
                         "End other programs, or give --formats q8_0 q4_0.")


def write_model(file, name):
    """Writes a Llama of random weights. Matrices of one shape are equal, which saves time and changes no speed."""
    import gguf
    import numpy

    kind = {
        "f32": gguf.GGMLQuantizationType.F32,
        "f16": gguf.GGMLQuantizationType.F16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
        "q4_0": gguf.GGMLQuantizationType.Q4_0,
    }[name]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name("random weights")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    # Three control tokens, the 256 bytes, and words to fill the vocabulary.
    token = gguf.TokenType
    filler = VOCABULARY - 259
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % i for i in range(256)), *(b"w%d" % i for i in range(filler))]
    kinds = [token.UNKNOWN, token.CONTROL, token.CONTROL, *[token.BYTE] * 256, *[token.NORMAL] * filler]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    random = numpy.random.default_rng(0)
    stored = {}

    def matrix(tensor, rows, columns):
        if (rows, columns) not in stored:
            values = random.standard_normal((rows, columns), dtype=numpy.float32) * numpy.float32(0.02)
            stored[rows, columns] = gguf.quants.quantize(values, kind)
        writer.add_tensor(f"{tensor}.weight", stored[rows, columns], raw_dtype=kind)

    def norm(tensor):
        writer.add_tensor(f"{tensor}.weight", numpy.ones(WIDTH, dtype=numpy.float32))

    matrix("token_embd", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        norm(f"blk.{layer}.attn_norm")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{part}", WIDTH, WIDTH)
        norm(f"blk.{layer}.ffn_norm")
        matrix(f"blk.{layer}.ffn_gate", FEED_FORWARD, WIDTH)
        matrix(f"blk.{layer}.ffn_up", FEED_FORWARD, WIDTH)
        matrix(f"blk.{layer}.ffn_down", WIDTH, FEED_FORWARD)
    norm("output_norm")
    matrix("output", VOCABULARY, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(options, name, file, ours):
    """Rounds of llama.cpp on `file`, and of `bolmo bench` on the checkpoint `ours` if there is one."""
    from llama_cpp import Llama

    model = Llama(str(file), n_threads=options.threads, n_threads_batch=options.threads, n_ctx=PROMPT + DECODED,
                  n_batch=PROMPT, n_ubatch=PROMPT, verbose=False)
    _, width = FORMATS[name]
    llama, bolmo, integers = [], [], []
    in_integers = ours and options.adapter == "cpu" and name in ("q8_0", "q4_0")
    sample(model)
    for number in range(options.rounds):
        progress(f"{name}: round {number + 1} of {options.rounds}")
        decoded, prompt = sample(model)
        llama.append({
            "tokens_per_second": decoded,
            "streamed_bytes_per_second": decoded * width * (LAYER_WEIGHTS + HEAD_WEIGHTS),
            "prompt_tokens_per_second": prompt,
            # The head runs once.
            "prompt_operations_per_second": prompt * 2 * (LAYER_WEIGHTS + HEAD_WEIGHTS / PROMPT),
        })
        if ours:
            bolmo.append(bench(options, name, ours))
        if in_integers:
            integers.append(bench(options, name, ours, "--products", "int8"))
    model.close()
    row = {"format": name, "llama": summary(llama)}
    if ours:
        row.update(beside(row["llama"], bolmo))
        row["bolmo_adapter"] = bolmo[0][1]
    if in_integers:
        row["integer_products"] = beside(row["llama"], integers)
    return row


def beside(llama, rounds):
    """Summary of rounds of `bolmo bench`, with its ratios to llama.cpp's."""
    bolmo = summary([figures for figures, _ in rounds])
    kinds = {"streamed": "streamed_bytes_per_second", "prompt": "prompt_operations_per_second"}
    return {"bolmo": bolmo, "ratios": {kind: bolmo[key]["best"] / llama[key]["best"] for kind, key in kinds.items()}}


def sample(model):
    """Tokens per second of decoding, and of a prompt."""
    model.reset()
    begun = time.perf_counter()
    model.eval([9] * PROMPT)
    prompt = PROMPT / (time.perf_counter() - begun)
    model.reset()
    model.eval([5] * BEFORE)
    begun = time.perf_counter()
    for _ in range(DECODED):
        model.eval([7])
    return DECODED / (time.perf_counter() - begun), prompt


def bench(options, name, ours, *more):
    """The figures of one run of `bolmo bench`, and its adapter."""
    bolmo_name, width = FORMATS[name]
    text = command([
        options.bolmo, "bench", "--model", str(ours), "--adapter", options.adapter, "--threads", str(options.threads),
        "--quantize", bolmo_name, "--bytes-per-patch", str(BYTES_PER_PATCH),
        "--prompt-bytes", str(PROMPT), "--decode-bytes", str(DECODED), "--runs", "1", "--json", "--quiet", *more,
    ])
    result = json.loads(text)
    weights = result["model"]["local_weights"] + result["model"]["global_weights"] / BYTES_PER_PATCH
    decoded = result["decode"]["bytes_per_second"]["median"]
    prompt = result["prefill"]["bytes_per_second"]["median"]
    return {
        "bytes_per_second": decoded,
        "streamed_bytes_per_second": decoded * width * weights,
        "prompt_bytes_per_second": prompt,
        "prompt_operations_per_second": prompt * result["prefill"]["operations_per_byte"],
    }, result["adapter"]


def command(words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"`{' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


def summary(rounds):
    values = {key: [figures[key] for figures in rounds] for key in rounds[0]}
    return {key: {"best": max(all), "median": statistics.median(all)} for key, all in values.items()}


def report(options, rows, load_before):
    import llama_cpp

    result = {
        "llama_cpp_python": llama_cpp.__version__,
        "llama_cpp": {"system": llama_cpp.llama_print_system_info().decode().strip()},
        "cpu": cpu_name(),
        "threads": options.threads,
        "load_average": {"before": load_before, "after": load_average()},
        "rounds": options.rounds,
        "model": {
            "layers": LAYERS, "width": WIDTH, "heads": HEADS, "feed_forward": FEED_FORWARD, "vocabulary": VOCABULARY,
            "weights": LAYER_WEIGHTS + 2 * HEAD_WEIGHTS,
        },
        "settings": {"prompt": PROMPT, "decoded": DECODED, "bytes_per_patch": BYTES_PER_PATCH},
        "formats": rows,
    }
    if options.bolmo:
        result["bolmo"] = command([options.bolmo, "--version"]).strip()
        result["adapter"] = rows[0]["bolmo_adapter"]
        for kind in ("streamed", "prompt"):
            ratios = [row["ratios"][kind] for row in rows]
            result.setdefault("geometric_means", {})[kind] = statistics.geometric_mean(ratios)
    for row in rows:
        row.pop("bolmo_adapter", None)
    return result


def show(result):
    load = result["load_average"]
    print(f"CPU: {result['cpu']}, {result['threads']} threads, load average {load['before']} before, "
          f"{load['after']} after")
    print(f"llama-cpp-python {result['llama_cpp_python']} ({result['llama_cpp']['system']})")
    if "adapter" in result:
        adapter = result["adapter"]
        print(f"{result['bolmo']}: {adapter['name']} ({adapter['backend']}, {adapter['driver']})")
    print(f"best of {result['rounds']} rounds\n")
    head = f"{'llama.cpp':<10}{'tokens/s':>10}{'weights, GB/s':>15}{'prompt tokens/s':>17}{'GFLOP/s':>9}"
    if "adapter" in result:
        head += f" | {'bolmo':<6}{'bytes/s':>9}{'weights, GB/s':>15}{'ratio':>7}{'prompt bytes/s':>16}" \
                f"{'GFLOP/s':>9}{'ratio':>7}"
    print(head)
    for row in result["formats"]:
        def best(side, key, factor=1.0):
            return row[side][key]["best"] * factor
        line = f"{row['format']:<10}{best('llama', 'tokens_per_second'):>10.1f}" \
               f"{best('llama', 'streamed_bytes_per_second', 1e-9):>15.1f}" \
               f"{best('llama', 'prompt_tokens_per_second'):>17.1f}" \
               f"{best('llama', 'prompt_operations_per_second', 1e-9):>9.0f}"
        if "bolmo" in row:
            line += " | " + ours_in_words(FORMATS[row["format"]][0], row)
        print(line)
        if "integer_products" in row:
            print(" " * 61 + " | " + ours_in_words("int8", row["integer_products"]))
    if "geometric_means" in result:
        means = result["geometric_means"]
        print(f"\ngeometric means of the ratios: weights {means['streamed']:.2f}, prompt {means['prompt']:.2f}")


def ours_in_words(name, found):
    """The right half of a line."""
    def best(key, factor=1.0):
        return found["bolmo"][key]["best"] * factor
    ratios = found["ratios"]
    return f"{name:<6}{best('bytes_per_second'):>9.1f}{best('streamed_bytes_per_second', 1e-9):>15.1f}" \
           f"{ratios['streamed']:>7.2f}{best('prompt_bytes_per_second'):>16.1f}" \
           f"{best('prompt_operations_per_second', 1e-9):>9.0f}{ratios['prompt']:>7.2f}"


def cpu_fields():
    """Pairs of names and values in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines) if value]


def cpu_name():
    """The model name, with family and model, which often say more."""
    fields = dict(reversed(cpu_fields()))
    name = fields.get("model name") or sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown CPU"
    if "cpu family" in fields and "model" in fields:
        name += f", family {fields['cpu family']} model {fields['model']}"
    return name


def physical_cores():
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    package, cores = None, set()
    for key, value in cpu_fields():
        if key == "physical id":
            package = value
        elif key == "core id":
            cores.add((package, value))
    return min(len(cores) or int(sysctl("hw.physicalcpu") or allowed), allowed)


def sysctl(key):
    if not shutil.which("sysctl"):
        return None
    done = subprocess.run(["sysctl", "-n", key], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=False)
    return done.stdout.strip() or None


def load_average():
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def available_memory():
    """Bytes of memory that programs can still use, where Linux reports them."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None


def progress(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""vLLM as `generation.py` asks it: run by the Python of its own environment, a line of contexts in, a line of texts out."""

import json
import os
import sys
import time

folder, new_tokens, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.environ |= {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the library prints goes to the log

if __name__ == "__main__":
    from vllm import LLM, SamplingParams

    start = time.perf_counter()
    model = LLM(folder, dtype="float32", max_model_len=2048, enable_prefix_caching=True)
    rule = SamplingParams(temperature=0, max_tokens=new_tokens)
    print(json.dumps({"seconds": time.perf_counter() - start}), file=answers, flush=True)
    for line in sys.stdin:
        asked = [{"prompt_token_ids": ids} for ids in json.loads(line)]
        found = model.generate(asked, rule, use_tqdm=False)
        end = model.get_tokenizer().eos_token_id
        texts = [[token for token in own.outputs[0].token_ids if token != end] for own in found]
        print(json.dumps(texts), file=answers, flush=True)

"""What the official OpenAI client makes of the server: one line a check, and a failure at the first that is wrong."""

import sys
import threading
import time
import urllib.request

import openai

url = sys.argv[1]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0, timeout=60)
MODEL = "reference"
QUESTION = [{"role": "user", "content": "Solve for k: 5k + 3 = 28."}]
count = 0


def check(name, right, seen=None):
    global count
    count += 1
    print(f"{count:2} {'ok' if right else 'WRONG'} {name}", flush=True)
    if not right:
        sys.exit(f"{name}: {seen!r}")


def ask(messages=QUESTION, **more):
    more.setdefault("temperature", 0)
    more.setdefault("max_tokens", 800)
    return client.chat.completions.create(model=MODEL, messages=messages, **more)


def refused(kind, field, **more):
    try:
        seen = ask(**more)
    except kind as error:
        check(f"{field} is refused", error.param == field, error.body)
    else:
        check(f"{field} is refused", False, seen)


def metric(name):
    with urllib.request.urlopen(f"{url}/metrics") as response:
        for line in response.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
    return 0.0


def joined(stream):
    thought, answer, finish, usage, told = "", "", None, None, None
    for chunk in stream:
        for choice in chunk.choices:
            thought += getattr(choice.delta, "reasoning_content", None) or ""
            answer += choice.delta.content or ""
            finish = choice.finish_reason or finish
        usage = chunk.usage or usage
        told = (chunk.model_extra or {}).get("specexit") or told
    return thought, answer, finish, usage, told


models = client.models.list().data
check("models are listed", [m.id for m in models] == [MODEL], models)
check("a model is told of", client.models.retrieve(MODEL).owned_by == "specexit")

whole = ask()
message = whole.choices[0].message
check("the answer is right", "5" in message.content and "think" not in message.content, message)
check("the thought is apart", len(message.reasoning_content) > 40, message)
check("the thought has both names", message.reasoning == message.reasoning_content)
check("the answer has ended", whole.choices[0].finish_reason == "stop", whole)
usage = whole.usage
check("usage adds up", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
reasoning = usage.completion_tokens_details.reasoning_tokens
check("thinking is counted", 0 < reasoning < usage.completion_tokens, usage)
told = whole.model_extra["specexit"]
check("the exit is told", told["exit"]["reason"] == "signals" and told["tau"] >= 1, told)

stream = ask(stream=True, stream_options={"include_usage": True})
thought, answer, finish, streamed, told = joined(stream)
check("the stream is the whole", (thought, answer) == (message.reasoning_content, message.content), (thought, answer))
check("the stream ends alike", finish == "stop", finish)
check("the stream's usage is the same", streamed.completion_tokens == usage.completion_tokens, streamed)
check("the stream tells the exit", told["exit"]["reason"] == "signals", told)

off = ask(extra_body={"specexit": {"mode": "off"}})
check("off thinks longer", off.usage.completion_tokens > usage.completion_tokens, off)
plain = ask(extra_body={"specexit": {"mode": "plain"}})
check("off is what the target says", off.choices[0].message == plain.choices[0].message, plain)
careful = ask(extra_body={"specexit": {"risk": 0.01}})
check("a risk is taken", careful.model_extra["specexit"]["mode"] == "specexit", careful)
bounded = ask(extra_body={"thinking_token_budget": 20})
check("a budget holds", bounded.usage.completion_tokens_details.reasoning_tokens <= 20, bounded)
none = ask(reasoning_effort="none")
check("no effort is no thought", none.usage.completion_tokens_details.reasoning_tokens == 0, none)
short = ask(max_completion_tokens=7, max_tokens=openai.NOT_GIVEN)
check("a limit holds", (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 7), short)
stopped = ask(stop=["answer"])
check("a stop string ends it", stopped.choices[0].message.content == "The ", stopped)
several = ask(n=3, temperature=1, seed=3)
check("choices are several", [c.index for c in several.choices] == [0, 1, 2], several)
again = ask(n=3, temperature=1, seed=3)
check("seeds repeat", [c.message for c in several.choices] == [c.message for c in again.choices])
likely = ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content
check("probabilities come along", len(likely) > 2 and len(likely[0].top_logprobs) == 2 and likely[0].logprob <= 0, likely)
traced = ask(extra_body={"specexit": {"trace": True}}).model_extra["specexit"]
check("a trace has all tokens", len(traced["tokens"]) == usage.completion_tokens and traced["signals"], traced)
talk = QUESTION + [{"role": "assistant", "content": message.content}, {"role": "user", "content": "Solve for k: 2k = 8."}]
talk = ask(talk)
check("a talk goes on from what was read", talk.usage.prompt_tokens_details.cached_tokens >= 16, talk.usage)
text = client.completions.create(model=MODEL, prompt="Solve for k: 5k + 3 = 28.<think>", max_tokens=5, temperature=0)
check("a text is completed", len(text.choices[0].text) > 3 and text.usage.completion_tokens == 5, text)

refused(openai.NotFoundError, "model", messages=QUESTION, extra_body={"model": "gpt-9"})
refused(openai.BadRequestError, "presence_penalty", presence_penalty=1.0)
refused(openai.BadRequestError, "max_tokens", max_tokens=10**6)
refused(openai.BadRequestError, "messages", messages=[{"role": "user", "content": "long " * 5000}])
refused(openai.BadRequestError, "specexit.speed", extra_body={"specexit": {"speed": 3}})
refused(openai.BadRequestError, "response_format", response_format={"type": "json_object"})
refused(openai.BadRequestError, "temperature", temperature=-1)

before = metric("specexit_cancelled_total")
for attempt in range(50):
    stream = ask(stream=True, n=8, temperature=1, max_tokens=1900, extra_body={"specexit": {"mode": "plain"}})
    next(iter(stream))
    stream.close()
    time.sleep(0.1)
    if metric("specexit_cancelled_total") > before:
        break
check("leaving cancels", metric("specexit_cancelled_total") > before)
deadline = time.time() + 20
while metric("specexit_running_sequences") > 0 and time.time() < deadline:
    time.sleep(0.05)
check("nothing is left behind", metric("specexit_kv_bytes") == 0, metric("specexit_kv_bytes"))

answers = [None] * 12


def one(place):
    answers[place] = ask().choices[0].message


threads = [threading.Thread(target=one, args=[place]) for place in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
check("many at once get the same", all(answer == message for answer in answers), answers)

for number in range(100):
    question = [{"role": "user", "content": f"Solve for k: {number}k + {number % 7} = {number * 4 + number % 7}."}]
    whole = ask(question).choices[0].message
    thought, answer, *_ = joined(ask(question, stream=True))
    if (thought, answer) != (whole.reasoning_content or "", whole.content):
        check("streams are wholes", False, (number, thought, answer, whole))
check("100 streams are wholes, byte for byte", True)
print(f"{count} checks passed")

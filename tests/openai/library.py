"""The official `openai` package against `cocoon proxy`, at OPENAI_BASE_URL."""

import json
import unittest

import openai

client = openai.OpenAI(max_retries=0)
MODEL = client.models.list().data[0].id
QUESTION = [{"role": "user", "content": "What is a rainbow?"}]


def chat(**more):
    wanted = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 12, **more}
    return client.chat.completions.create(**wanted)


class Chat(unittest.TestCase):
    def test_models(self):
        self.assertEqual(client.models.retrieve(MODEL).id, MODEL)
        with self.assertRaises(openai.NotFoundError):
            client.models.retrieve("no-such")

    def test_whole_and_streamed_are_the_same(self):
        whole = chat()
        self.assertEqual(whole.choices[0].finish_reason, "length")
        self.assertEqual(whole.usage.completion_tokens, 12)
        text, usage = "", None
        for chunk in chat(stream=True, stream_options={"include_usage": True}):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(usage, whole.usage)
        self.assertIn("rainbow", text.lower())

    def test_the_same_seed_gives_the_same_answer(self):
        one, two, other = (chat(temperature=1.2, seed=seed).choices[0].message.content for seed in (7, 7, 8))
        self.assertEqual(one, two)
        self.assertNotEqual(one, other)

    def test_stop(self):
        whole = chat(max_tokens=24).choices[0].message.content
        word = whole.split()[3]
        stopped = chat(max_tokens=24, stop=[word]).choices[0]
        self.assertEqual(stopped.finish_reason, "stop")
        self.assertEqual(stopped.message.content, whole[: whole.index(word)])

    def test_logprobs(self):
        choice = chat(logprobs=True, top_logprobs=3).choices[0]
        tokens = choice.logprobs.content
        self.assertEqual("".join(token.token for token in tokens), choice.message.content)
        for token in tokens:
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertLessEqual(token.logprob, 0)
            self.assertEqual(token.top_logprobs[0].token, token.token)  # temperature 0

    def test_penalties_and_bias(self):
        token = chat(max_tokens=1).choices[0].message.content
        self.assertNotEqual(chat(max_tokens=1, logit_bias={"0": 100}).choices[0].message.content, token)
        chat(presence_penalty=1, frequency_penalty=1, extra_body={"repetition_penalty": 1.1, "top_k": 5, "min_p": 0.1})

    def test_a_stream_can_be_left(self):
        stream = chat(stream=True, max_tokens=1500)
        next(iter(stream))
        stream.close()
        self.assertTrue(chat(max_tokens=1).choices)

    def test_a_conversation_goes_on(self):
        answer = chat().choices[0].message
        more = [*QUESTION, {"role": "assistant", "content": answer.content}, {"role": "user", "content": "Why?"}]
        self.assertTrue(chat(messages=more).choices[0].message.content)


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Formats(unittest.TestCase):
    def test_n(self):
        whole = chat(n=3, temperature=1.2, seed=5)
        self.assertEqual([choice.index for choice in whole.choices], [0, 1, 2])
        self.assertEqual(len({choice.message.content for choice in whole.choices}), 3)
        self.assertEqual(whole.usage.completion_tokens, 36)
        texts = ["", "", ""]
        for chunk in chat(n=3, temperature=1.2, seed=5, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        self.assertEqual(texts, [choice.message.content for choice in whole.choices])

    def test_json_schema(self):
        wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
        answer = chat(response_format=wanted, max_tokens=60, messages=[{"role": "user", "content": "Invent a person."}])
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        person = json.loads(answer.choices[0].message.content)
        self.assertEqual(set(person), {"name", "age"})
        self.assertTrue(len(person["name"]) <= 12 and 0 <= person["age"] <= 150)
        with self.assertRaises(openai.BadRequestError) as caught:
            chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}})
        self.assertEqual(caught.exception.code, "invalid_json_schema")

    def test_tools(self):
        forced = {"type": "function", "function": {"name": "get_weather"}}
        question = [{"role": "user", "content": "How is the weather in Paris?"}]
        wanted = {"messages": question, "tools": [WEATHER], "tool_choice": forced, "max_tokens": 80}
        choice = chat(**wanted).choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        call = choice.message.tool_calls[0]
        self.assertEqual((call.type, call.function.name), ("function", "get_weather"))
        arguments = json.loads(call.function.arguments)
        self.assertIn(arguments["unit"], ("C", "F"))
        streamed = {"name": "", "arguments": ""}
        for chunk in chat(stream=True, **wanted):
            for part in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
                streamed["name"] += part.function.name or ""
                streamed["arguments"] += part.function.arguments or ""
        self.assertEqual(streamed, {"name": "get_weather", "arguments": call.function.arguments})
        result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
        after = chat(messages=[*question, choice.message, result], tools=[WEATHER])
        self.assertTrue(after.choices[0].message.content)

    def test_completions(self):
        wanted = {"model": MODEL, "prompt": "A rainbow is", "temperature": 0, "max_tokens": 8}
        whole = client.completions.create(**wanted)
        self.assertEqual(whole.object, "text_completion")
        text = "".join(chunk.choices[0].text for chunk in client.completions.create(stream=True, **wanted))
        self.assertEqual(text, whole.choices[0].text)

    def test_responses(self):
        wanted = {"model": MODEL, "input": "What is a rainbow?", "temperature": 0, "max_output_tokens": 12}
        whole = client.responses.create(store=False, **wanted)
        self.assertEqual((whole.object, whole.usage.output_tokens), ("response", 12))
        self.assertIn("rainbow", whole.output_text.lower())
        text, last = "", None
        for event in client.responses.create(stream=True, **wanted):
            text += event.delta if event.type == "response.output_text.delta" else ""
            last = event.type
        self.assertEqual((text, last), (whole.output_text, "response.incomplete"))


class Embeddings(unittest.TestCase):
    def test_texts_become_vectors(self):
        texts = ["a rainbow", "a rainbow", "the law of contracts"]
        # The library asks for base64 and unpacks it.
        whole = client.embeddings.create(model="tiny", input=texts)
        one, same, other = (item.embedding for item in whole.data)
        self.assertEqual((len(one), one == same, one == other), (32, True, False))
        self.assertAlmostEqual(sum(x * x for x in one), 1, places=5)
        numbers = client.embeddings.create(model="tiny", input=texts[0], encoding_format="float").data[0].embedding
        for a, b in zip(one, numbers, strict=True):
            self.assertAlmostEqual(a, b, places=6)
        self.assertEqual(whole.usage.prompt_tokens, whole.usage.total_tokens)
        with self.assertRaises(openai.BadRequestError) as caught:
            client.embeddings.create(model="tiny", input=texts, dimensions=8)
        self.assertEqual(caught.exception.param, "dimensions")


class Errors(unittest.TestCase):
    def refused(self, kind, param, code, **wanted):
        with self.assertRaises(kind) as caught:
            chat(**wanted)
        self.assertEqual((caught.exception.param, caught.exception.code), (param, code))

    def test_errors_are_those_of_the_library(self):
        bad = openai.BadRequestError
        self.refused(bad, "temperature", "invalid_value", temperature=3)
        self.refused(bad, "messages[0].role", "invalid_value", messages=[{"role": "wizard", "content": "x"}])
        self.refused(bad, "unheard_of", "unsupported_parameter", extra_body={"unheard_of": 1})
        self.refused(openai.NotFoundError, None, "model_not_found", model="no-such")
        long = [{"role": "user", "content": "rainbow " * 9000}]
        self.refused(bad, "messages", "context_length_exceeded", messages=long)




if __name__ == "__main__":
    unittest.main(verbosity=2)

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

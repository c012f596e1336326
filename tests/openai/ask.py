"""A script as anybody may have it: nothing in it knows of Cocoon."""

from openai import OpenAI

client = OpenAI()
answer = client.chat.completions.create(
    model="gpt-4o-mini",
    messages=[{"role": "user", "content": "What is a rainbow?"}],
    temperature=0,
    max_tokens=40,
)
print(answer.choices[0].message.content)

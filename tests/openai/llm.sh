# Asks with `llm` ($1) through the proxy at OPENAI_BASE_URL.
set -eu
LLM_USER_PATH=$(mktemp -d)
export LLM_USER_PATH
model=$("${1%llm}python" -c 'import openai; print(openai.OpenAI().models.list().data[0].id)')
cat >"$LLM_USER_PATH/extra-openai-models.yaml" <<END
- model_id: cocoon
  model_name: $model
  api_base: "$OPENAI_BASE_URL"
END
answer=$("$1" -m cocoon -o temperature 0 -o max_tokens 12 --key unused "What is a rainbow?")
printf '%s\n' "$answer"
printf '%s' "$answer" | grep -qi rainbow
answer=$("$1" -m cocoon --no-stream -o temperature 0 -o max_tokens 12 --key unused "What is a rainbow?")
printf '%s' "$answer" | grep -qi rainbow
rm -r "$LLM_USER_PATH"

"""Chat templates in the manner of the common families.

They are written here, in our words; the shape of what they write is that of the families.
"""

from __future__ import annotations

CHATML = """
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

_QWEN_HEAD = """
{%- set told = messages[0].content if messages[0].role == 'system' else DEFAULT -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' + (told + '\\n\\n' if told else '') + '# Tools\\n\\nOf use:' -}}
{{- '\\n<tools>' -}}
{%- for tool in tools -%}{{- '\\n' + tool | tojson -}}{%- endfor -%}
{{- '\\n</tools>\\n\\nTo use one, write\\n<tool_call>\\n{"name": NAME, "arguments": JSON}\\n' -}}
{{- '</tool_call><|im_end|>\\n' -}}
{%- elif told -%}{{- '<|im_start|>system\\n' + told + '<|im_end|>\\n' -}}{%- endif -%}
"""
_QWEN_CALLS = """
{%- for call in m.tool_calls or [] -%}
{%- if not loop.first or m.content -%}{{- '\\n' -}}{%- endif -%}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- (call.function.arguments if call.function.arguments is string
     else call.function.arguments | tojson) + '}\\n</tool_call>' -}}
{%- endfor -%}
"""
_QWEN_TOOL = """
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}
{{- '<|im_start|>user' -}}{%- endif -%}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' -}}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
"""
QWEN25 = (
    _QWEN_HEAD.replace("DEFAULT", "'You are Qwen. Be a helpful assistant.'")
    + """
{%- for m in messages -%}
{%- if m.role == 'tool' -%}"""
    + _QWEN_TOOL
    + """
{%- elif m.role == 'assistant' -%}{{- '<|im_start|>assistant\\n' + m.content -}}"""
    + _QWEN_CALLS
    + """{{- '<|im_end|>\\n' -}}
{%- elif m.role != 'system' or not loop.first -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
)
QWEN3 = (
    _QWEN_HEAD.replace("DEFAULT", "''")
    + """
{%- set ns = namespace(asked=-1) -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set ns.asked = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- if m.role == 'tool' -%}"""
    + _QWEN_TOOL
    + """
{%- elif m.role == 'assistant' -%}
{%- set ns.said = m.content -%}{%- set ns.thought = m.reasoning_content or '' -%}
{%- if '</think>' in m.content and not ns.thought -%}
{%- set ns.said = m.content.split('</think>')[-1].lstrip('\\n') -%}
{%- set ns.thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if loop.index0 > ns.asked and (loop.last or ns.thought) -%}
{{- '<think>\\n' + ns.thought.strip('\\n') + '\\n</think>\\n\\n' + ns.said.lstrip('\\n') -}}
{%- else -%}{{- ns.said -}}{%- endif -%}"""
    + _QWEN_CALLS
    + """{{- '<|im_end|>\\n' -}}
{%- elif m.role != 'system' or not loop.first -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and not enable_thinking -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}{%- endif -%}
"""
)
LLAMA3 = """
{%- set day = strftime_now('%d %b %Y') if strftime_now is defined else '1 Jan 2025' -%}
{%- set has_told = messages[0].role == 'system' -%}
{%- set rest = messages[1:] if has_told else messages -%}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}
{{- 'Knowledge ends: December 2023\\nToday is: ' + (date_string or day) + '\\n\\n' -}}
{{- (messages[0].content | trim if has_told else '') + '<|eot_id|>' -}}
{%- for m in rest -%}
{%- if m.role == 'tool' or m.role == 'ipython' -%}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + m.content | tojson + '<|eot_id|>' -}}
{%- elif m.tool_calls -%}
{%- if m.tool_calls | length != 1 -%}{{- raise_exception('one call at a time') -}}{%- endif -%}
{%- set call = m.tool_calls[0].function -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}<|eot_id|>' -}}
{%- else -%}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim -}}
{{- '<|eot_id|>' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""
_MISTRAL_REST = """
{%- if m.role == 'user' -%}OPEN
{%- elif m.role == 'assistant' and m.tool_calls -%}
{{- '[TOOL_CALLS] [' -}}
{%- for call in m.tool_calls -%}
{%- if call.id | length != 9 -%}{{- raise_exception('an id has nine letters') -}}{%- endif -%}
{{- call.function | tojson | replace('}}', '}') + ', "id": "' + call.id + '"}' -}}
{{- ', ' if not loop.last else ']' + eos_token -}}
{%- endfor -%}
{%- elif m.role == 'assistant' -%}{{- ' ' + m.content + eos_token -}}
{%- elif m.role == 'tool' -%}
{{- '[TOOL_RESULTS] {"content": ' + m.content | tojson + ', "call_id": "' + m.tool_call_id -}}
{{- '"}[/TOOL_RESULTS]' -}}
"""
MISTRAL = (
    """
{%- set told = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' -%}
{%- set rest = messages[1:] if told else messages -%}
{%- set ns = namespace(last=-1, users=0) -%}
{%- for m in rest -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}
{%- endif -%}{%- endfor -%}
{{- bos_token -}}
{%- for m in rest -%}"""
    + _MISTRAL_REST.replace(
        "OPEN",
        """
{%- if not loop.first and rest[loop.index0 - 1].role == 'user' -%}
{{- raise_exception('user and assistant take turns') -}}{%- endif -%}
{%- if tools and loop.index0 == ns.last -%}
{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' -}}{%- endif -%}
{{- '[INST] ' + (told if loop.index0 == ns.last else '') + m.content + '[/INST]' -}}""",
    )
    + """
{%- else -%}{{- raise_exception('there is no role ' + m.role) -}}
{%- endif -%}{%- endfor -%}
"""
)
MAGISTRAL = (
    """
{%- set has_told = messages[0].role == 'system' -%}
{%- set usual = 'First draft in thoughts:\\n[THINK]Your draft.[/THINK]Then answer.' -%}
{{- bos_token + '[SYSTEM_PROMPT]' + (messages[0].content if has_told else usual) -}}
{{- '[/SYSTEM_PROMPT]' -}}
{%- for m in (messages[1:] if has_told else messages) -%}"""
    + _MISTRAL_REST.replace("OPEN", "{{- '[INST]' + m.content + '[/INST]' -}}").replace(
        "{{- ' ' + m.content", "{{- m.content"
    )
    + """
{%- elif m.role == 'system' -%}
{{- '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' -}}
{%- endif -%}{%- endfor -%}
"""
)
GEMMA = """
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role not in ['user', 'assistant'] -%}
{{- raise_exception('there is no role ' + m.role) -}}{%- endif -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('user and assistant take turns') -}}{%- endif -%}
{%- set role = 'model' if m.role == 'assistant' else 'user' -%}
{{- '<start_of_turn>' + role + '\\n' + m.content | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
GEMMA_MERGED = (
    GEMMA.replace(
        "{%- for m in messages -%}",
        "{%- set told = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' -%}"
        "{%- for m in (messages[1:] if told else messages) -%}",
    )
    .replace("+ m.content | trim", "+ (told if loop.first else '') + m.content | trim")
    .strip()
)
PHI3 = """
{%- for m in messages -%}
{{- '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' -}}
{%- endfor -%}
{{- '<|assistant|>\\n' if add_generation_prompt else eos_token -}}
"""
ZEPHYR = """
{%- for m in messages -%}
{{- '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' -}}
{%- if loop.last and add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
{%- endfor -%}
"""
HARMONY = """
{{- '<|start|>system<|message|>You are a model that speaks.\\nKnowledge ends: 2024-06\\n' -}}
{{- 'Today is: ' + (strftime_now('%Y-%m-%d') if strftime_now is defined else '2025-01-01') -}}
{{- '\\n\\nReasoning: low\\n\\n# Channels: analysis, commentary, final.<|end|>' -}}
{%- set has_told = messages[0].role in ['system', 'developer'] -%}
{%- if has_told -%}
{{- '<|start|>developer<|message|># Instructions\\n\\n' + messages[0].content + '\\n\\n<|end|>' -}}
{%- endif -%}
{%- set ns = namespace(called='') -%}
{%- for m in (messages[1:] if has_told else messages) -%}
{%- if m.role == 'assistant' and m.tool_calls -%}
{%- if m.thinking -%}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' -}}
{%- endif -%}
{%- for call in m.tool_calls -%}
{%- set ns.called = call.function.name -%}
{{- '<|start|>assistant to=functions.' + ns.called + '<|channel|>commentary json<|message|>' -}}
{{- call.function.arguments | tojson + '<|call|>' -}}
{%- endfor -%}
{%- elif m.role == 'assistant' -%}
{%- if m.thinking and loop.last and not add_generation_prompt -%}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' -}}{%- endif -%}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content -}}
{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' -}}
{%- elif m.role == 'tool' -%}
{{- '<|start|>functions.' + ns.called + ' to=assistant<|channel|>commentary<|message|>' -}}
{{- m.content | tojson + '<|end|>' -}}
{%- elif m.role == 'user' -%}{{- '<|start|>user<|message|>' + m.content + '<|end|>' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}
"""
SMOLLM3 = """
{%- set told = messages[0].content if messages[0].role == 'system' else '' -%}
{%- set quiet = '/no_think' in told or (enable_thinking is defined and not enable_thinking) -%}
{{- '<|im_start|>system\\n## Metadata\\n\\nToday is: ' + strftime_now('%d %B %Y') -}}
{{- '\\nReasoning: ' + ('/no_think' if quiet else '/think') + '\\n\\n## Instructions\\n\\n' -}}
{{- (told.replace('/no_think', '').rstrip() or 'You are SmolLM, a small helpful model.') -}}
{{- '\\n\\n<|im_end|>\\n' -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{{- '<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n' if quiet else '') -}}
{{- m.content.lstrip('\\n') + '<|im_end|>\\n' -}}
{%- elif m.role == 'tool' -%}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' -}}
{%- elif m.role == 'user' -%}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n' if quiet else '') -}}{%- endif -%}
"""
LLAMA2 = """
{%- set has_told = messages[0].role == 'system' -%}
{%- for m in (messages[1:] if has_told else messages) -%}
{%- if m.role == 'user' -%}
{%- set told = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' -%}
{{- bos_token + '[INST] ' + (told if has_told and loop.first else '') + m.content + ' [/INST]' -}}
{%- elif m.role == 'assistant' -%}{{- ' ' + m.content + ' ' + eos_token -}}
{%- else -%}{{- raise_exception('there is no role ' + m.role) -}}
{%- endif -%}{%- endfor -%}
"""
PLAIN = """
{%- for m in messages -%}
{%- if m.role == 'system' and (loop.first or messages[loop.index0 - 1].role == 'system') -%}
{{- m.content + '\\n' -}}
{%- elif m.role == 'system' -%}{{- raise_exception('a system message comes first') -}}
{%- else -%}{{- {'user': 'User', 'assistant': 'Assistant', 'tool': 'Tool'}[m.role] -}}
{{- ': ' + m.content + '\\n' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""

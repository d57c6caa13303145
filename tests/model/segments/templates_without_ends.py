"""Chat templates whose messages end where the next one begins; see `templates`."""

from __future__ import annotations

DEEPSEEK = """
{%- set ns = namespace(told='', after_tool=false) -%}
{%- for m in messages -%}{%- if m.role == 'system' -%}
{%- set ns.told = ns.told + ('\\n\\n' if ns.told else '') + m.content -%}
{%- endif -%}{%- endfor -%}
{{- bos_token + ns.told -}}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{{- '<｜User｜>' + m.content -}}{%- set ns.after_tool = false -%}
{%- elif m.role == 'assistant' and m.tool_calls -%}
{{- ('' if ns.after_tool else '<｜Assistant｜>') + m.content + '<｜tool▁calls▁begin｜>' -}}
{%- for call in m.tool_calls -%}
{{- ('' if loop.first else '\\n') + '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' -}}
{%- set args = call.function.arguments -%}
{{- call.function.name + '\\n```json\\n' + (args if args is string else args | tojson) -}}
{{- '\\n```' -}}
{{- '<｜tool▁call▁end｜>' -}}
{%- endfor -%}
{{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' -}}{%- set ns.after_tool = false -%}
{%- elif m.role == 'assistant' -%}
{{- ('' if ns.after_tool else '<｜Assistant｜>') + m.content.split('</think>')[-1] -}}
{{- '<｜end▁of▁sentence｜>' -}}{%- set ns.after_tool = false -%}
{%- elif m.role == 'tool' -%}
{{- ('\\n' if ns.after_tool else '<｜tool▁outputs▁begin｜>') + '<｜tool▁output▁begin｜>' -}}
{{- m.content + '<｜tool▁output▁end｜>' -}}{%- set ns.after_tool = true -%}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}
{{- '<｜tool▁outputs▁end｜>' -}}{%- endif -%}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt and not ns.after_tool -%}
{{- '<｜Assistant｜><think>\\n' -}}{%- endif -%}
"""
DEEPSEEK_V31 = """
{%- set ns = namespace(told='', asked=false) -%}
{%- for m in messages -%}{%- if m.role == 'system' -%}
{%- set ns.told = ns.told + ('\\n\\n' if ns.told else '') + m.content -%}
{%- endif -%}{%- endfor -%}
{{- bos_token + ns.told -}}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{{- '<｜User｜>' + m.content -}}{%- set ns.asked = true -%}
{%- elif m.role == 'assistant' -%}
{{- '<｜Assistant｜></think>' if ns.asked else '' -}}{%- set ns.asked = false -%}
{{- m.content or '' -}}
{%- for call in m.tool_calls or [] -%}
{%- set args = call.function.arguments -%}
{{- ('<｜tool▁calls▁begin｜>' if loop.first else '') + '<｜tool▁call▁begin｜>' -}}
{{- call.function.name + '<｜tool▁sep｜>' + (args if args is string else args | tojson) -}}
{{- '<｜tool▁call▁end｜>' + ('<｜tool▁calls▁end｜>' if loop.last else '') -}}
{%- endfor -%}
{{- '<｜end▁of▁sentence｜>' -}}
{%- elif m.role == 'tool' -%}{%- set ns.asked = false -%}
{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt and ns.asked -%}
{{- '<｜Assistant｜>' + ('<think>' if thinking else '</think>') -}}{%- endif -%}
"""
GLM = """
{{- '[gMASK]<sop>' -}}
{%- set ns = namespace(asked=-1) -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set ns.asked = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{{- '<|user|>\\n' + m.content -}}
{{- '/nothink' if enable_thinking is defined and not enable_thinking else '' -}}
{%- elif m.role == 'system' -%}{{- '<|system|>\\n' + m.content -}}
{%- elif m.role == 'assistant' -%}
{%- set thought = m.reasoning_content if loop.index0 > ns.asked else '' -%}
{{- '<|assistant|>\\n<think>' + (thought or '') + '</think>' -}}
{{- '\\n' + m.content.strip() if m.content else '' -}}
{%- for call in m.tool_calls or [] -%}
{{- '\\n<tool_call>' + call.function.name + '\\n' -}}
{%- for key, value in call.function.arguments.items() -%}
{{- '<arg_key>' + key + '</arg_key>\\n<arg_value>' + value + '</arg_value>\\n' -}}
{%- endfor -%}{{- '</tool_call>' -}}
{%- endfor -%}
{%- elif m.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{- '<|observation|>' -}}
{%- endif -%}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' + ('\\n<think></think>' if enable_thinking is defined and not enable_thinking
     else '') -}}{%- endif -%}
"""

"""Where the parts of the chat screen stand, and the theme it opens with."""

from __future__ import annotations

from textual.theme import Theme

NIGHT = Theme(
    name="emowatch",
    dark=True,
    primary="#56B4E9",
    secondary="#9A9FA8",
    accent="#56B4E9",
    foreground="#D7DAE0",
    background="#14161B",
    surface="#1A1D23",
    panel="#2A2E37",
    warning="#E69F00",
    error="#E8663A",
    success="#00A87B",
)

CSS = """
Screen { layers: default over; overflow: hidden; }
#head { height: 1; padding: 0 1; background: $panel; }
#head Static { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
#names { width: 1fr; }
#state { width: auto; }
#main { height: 1fr; }
#alarm {
    display: none; height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    background: $warning 20%; color: $foreground;
}
Prompt, Prompt:focus {
    height: 2; padding: 0 1; background: $background; border: none;
    border-top: solid $panel;
}
Prompt:focus { border-top: solid $primary; }
Footer { background: $panel; }
#small {
    layer: over; display: none; width: 100%; height: 100%; background: $background;
}
Screen.-small #small { display: block; }
Screen.-small Footer { display: none; }
Screen.-wide TracePanel { width: 54; }
Screen.-narrow #main { layout: vertical; }
Screen.-narrow Transcript { width: 100%; }
Screen.-narrow TracePanel {
    width: 100%; height: auto; max-height: 3; border-left: none; border-top: solid $panel;
}
Screen.-narrow TraceBlock { height: 1; margin: 0; text-wrap: nowrap; text-overflow: ellipsis; }
"""

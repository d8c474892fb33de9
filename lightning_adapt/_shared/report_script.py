"""The only script of the demo's page: copy buttons, fewer stops for the Tab key, details that are printed."""

from __future__ import annotations

__all__ = ["SCRIPT"]

# Without it the page lacks the buttons and nothing else: they are hidden in the HTML. A page opened from a disk may
# have no clipboard; then the code is selected, for the user to copy.
SCRIPT = """
"use strict";
const status = document.createElement("p");
status.className = "hidden";
status.setAttribute("role", "status");
document.body.append(status);
function say(button, text) {
  button.textContent = text;
  status.textContent = text;
  setTimeout(() => { button.textContent = "Copy"; status.textContent = ""; }, 2500);
}
for (const button of document.querySelectorAll("button.copy")) {
  const code = button.closest(".code").querySelector("code");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      say(button, "Copied");
    } catch {
      getSelection().selectAllChildren(code);
      say(button, "Selected: press Ctrl+C");
    }
  });
}
function stops() {  // only what scrolls needs the keyboard
  for (const box of document.querySelectorAll(".scroll, pre")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
  }
}
addEventListener("load", stops);
addEventListener("resize", stops);
for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", stops);
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
"""

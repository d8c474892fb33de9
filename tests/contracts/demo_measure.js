// Measures the demo's page in a browser: what a reader sees and what a keyboard reaches.
addEventListener("load", () => {
  const light = (colour) => {
    const [red, green, blue] = colour.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const parts = (text) => text.match(/[\d.]+/g).map(Number);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const contrast = (element) => {
    const both = [light(parts(getComputedStyle(element).color).slice(0, 3)), light(ground(element))].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
  };
  const name = (element) => `${element.tagName.toLowerCase()}.${element.className}: ${element.textContent.slice(0, 40)}`;
  const all = (choice) => [...document.querySelectorAll(choice)];
  for (const details of all("details")) details.open = true;
  setTimeout(() => {
    const texts = all("body *").filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
    const spoken = texts.filter((e) => !["SCRIPT", "STYLE", "NOSCRIPT"].includes(e.tagName));
    const reached = all("a, button, summary, audio, [tabindex='0']").filter((e) => e.getClientRects().length);
    const unseen = reached.filter((e) => {
      e.focus();
      const style = getComputedStyle(e);
      return document.activeElement !== e || (style.outlineStyle === "none" && e.tagName !== "AUDIO");
    });
    const boxes = all("nav a, button, summary").filter((e) => e.getClientRects().length);
    const outside = all("body *").filter((e) => {
      const box = e.getBoundingClientRect();
      return box.right > document.documentElement.clientWidth + 1 && !e.closest(".scroll, pre") && !e.closest(".skip, .hidden");
    });
    for (const details of all("details")) details.open = false;
    parent.postMessage({
      width: innerWidth,
      wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      outside: outside.map(name),
      images: Object.fromEntries(all("img").map((i) => [i.currentSrc.split("/").pop(), i.naturalWidth])),
      pale: spoken.filter((e) => contrast(e) < 4.5).map((e) => `${contrast(e).toFixed(2)} ${name(e)}`),
      unseen: unseen.map(name),
      small: boxes.filter((e) => e.getBoundingClientRect().height < 24).map(name),
      copies: all("button.copy").filter((e) => !e.hidden).length,
      screens: Object.fromEntries(
        all("section.method").map((e) => [e.getAttribute("aria-labelledby"), e.offsetHeight]),
      ),
      overview: document.querySelector("section.overview").offsetHeight,
    }, "*");
  }, 500);
});

// Draws one row as chips. Everything that comes from a row becomes a text node or an attribute, never markup.

function element(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function legend(words) {
  const row = element("div", "legend");
  for (const [className, says] of words) {
    const entry = element("span", "");
    entry.append(element("span", `chip ${className}`, "ab"), says);
    row.append(entry);
  }
  return row;
}

// A line break is shown by its sign and broken after it; blanks at the start of a token stay as they are.
function chip(token) {
  const node = element("span", `chip ${token.kind}`);
  if (token.kind === "special" && token.trained) node.classList.add("learned");
  if (token.cut) node.classList.add("cut");
  const place = token.ids.length > 1 ? `tokens ${token.from + 1} to ${token.from + token.ids.length}` : `token ${token.from + 1}`;
  node.title = `${place} · id ${token.ids.join(", ")} · ${token.cut ? "lost" : token.trained ? "learned from" : "only read"}`;
  for (const part of token.text.split(/(\n|\t)/)) {
    if (part === "\n") node.append(element("span", "sign", "↵"), "\n");
    else if (part === "\t") node.append(element("span", "sign", "→"), "\t");
    else if (part) node.append(part);
  }
  return node;
}

export default function (component) {
  const { data, parentElement } = component;
  const view = parentElement.querySelector(".view");
  const text = element("div", "text");
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", "The row as tokens");
  let cut = false;
  for (const token of data.chips) {
    if (token.cut && !cut) {
      text.append(element("div", "line", data.cut_says));
      cut = true;
    }
    text.append(chip(token));
  }
  if (data.hidden) text.append(element("div", "more", data.hidden_says));
  view.replaceChildren(legend(data.legend), text);
}

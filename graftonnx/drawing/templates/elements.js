// Elements of a page and numbers for people. Texts go into the page as text only.

/** What is not seen in a text, or turns what is around it. */
const UNFIT =
  /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{d800}-\u{dfff}\u{e0000}-\u{e007f}]/gu;

/** A text with that spelt out, as Python writes it: \x1b, \u202e, \U000e0041. */
function printable(text) {
  return text.replace(UNFIT, (found) => {
    const code = found.codePointAt(0);
    const [letter, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
    return `\\${letter}${code.toString(16).padStart(digits, "0")}`;
  });
}

/** Make an element; strings among its children become text. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  const shown = children.filter((child) => child !== null);
  element.append(...shown.map((child) => (typeof child === "string" ? printable(child) : child)));
  return element;
}

/** A long name with places where a line may break. */
function breakable(name) {
  const parts = printable(name).split(/(?<=[./_])/u).flatMap((part) => [document.createElement("wbr"), part]);
  const whole = document.createDocumentFragment();
  whole.append(...parts.slice(1));
  return whole;
}

function button(text, action, className = "link") {
  const element = make("button", { type: "button", className }, breakable(text));
  element.addEventListener("click", action);
  return element;
}

/** A large number in thousands, millions or billions. */
function short(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  }
  return String(value);
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** Names and values, side by side. */
function facts(rows) {
  const list = make("dl", { className: "pairs" });
  for (const [name, value] of rows) list.append(make("dt", {}, name), make("dd", {}, value));
  return list;
}

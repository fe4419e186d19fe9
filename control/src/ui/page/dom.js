// Elements, made without markup: whatever comes from outside goes in as text.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. `attributes.on` has listeners; true is an attribute without a value; null, undefined and false are left out. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "value") {
      element.value = value;
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

/** Puts `children` in the place of all that is in `element`. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** The same; what had the focus gets it again, if something of the same name is there. */
export function refill(element, ...children) {
  const focused = element.contains(document.activeElement) ? nameOf(document.activeElement) : undefined;
  replace(element, children);
  if (focused === undefined) return element;
  const again = [...element.querySelectorAll("a, button, input, select, textarea, [tabindex]")].find(
    (one) => nameOf(one) === focused,
  );
  again?.focus({ preventScroll: true });
  return element;
}

function nameOf(element) {
  return `${element.tagName} ${element.getAttribute("aria-label") ?? element.textContent}`;
}

/** A link to a view. */
export function link(path, ...children) {
  return h("a", { href: `#${path}` }, children.length ? children : path);
}

/** A button that does something. While what it does goes on, it cannot be pressed again. */
export function button(text, act, attributes) {
  const press = async () => {
    if (made.getAttribute("aria-disabled") === "true") return;
    made.setAttribute("aria-disabled", "true");
    try {
      await act(made);
    } finally {
      made.removeAttribute("aria-disabled");
    }
  };
  const made = h("button", { type: "button", ...attributes, on: { click: press } }, text);
  return made;
}

let fields = 0;

/** A control with its label. */
export function field(label, control, hint) {
  fields += 1;
  control.id ||= `field-${fields}`;
  const told = hint ? h("small", { id: `${control.id}-hint`, class: "quiet" }, hint) : null;
  if (told) control.setAttribute("aria-describedby", told.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, told);
}

/** A choice among `options`, each a value or [value, text]. */
export function select(options, value, attributes) {
  const made = options.map((option) => {
    const [of, text] = Array.isArray(option) ? option : [option, option];
    return h("option", { value: of }, text);
  });
  const choice = h("select", attributes, made);
  choice.value = value;
  return choice;
}

/** Says it to who listens to the page, and to nobody else. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

// What part of the drawing is seen: drag, wheel, pinch, and the buttons of the view.

const LEAST = 0.05;
const MOST = 2.5;

export class Viewport {
  /** @param {SVGSVGElement} svg what shows `root`, a group in it */
  constructor(svg, root) {
    this.svg = svg;
    this.root = root;
    this.at = { x: 0, y: 0, scale: 1 };
    this.fingers = new Map();
    this.listen();
  }

  /** Another drawing, seen from the same place. */
  show(root, size) {
    this.root = root;
    this.size = size;
    this.apply();
  }

  /** All of it, and not larger than it was drawn; but not smaller than `least`. */
  fit(least = LEAST) {
    this.isMoved = false;
    this.least = least;
    const { width, height } = this.room();
    const fitting = Math.min(1.15, (width - 24) / this.size.width, (height - 24) / this.size.height);
    const scale = Math.max(least, fitting);
    this.at = {
      scale,
      x: Math.max(12, (width - this.size.width * scale) / 2),
      y: Math.max(12, (height - this.size.height * scale) / 2),
    };
    this.apply();
  }

  /** Nearer or farther, around a point of the view (its middle unless given). */
  zoom(factor, around = { x: this.room().width / 2, y: this.room().height / 2 }) {
    const scale = Math.min(MOST, Math.max(LEAST, this.at.scale * factor));
    const ratio = scale / this.at.scale;
    this.isMoved = true;
    this.at = { scale, x: around.x - (around.x - this.at.x) * ratio, y: around.y - (around.y - this.at.y) * ratio };
    this.apply();
  }

  move(x, y) {
    this.isMoved = true;
    this.at = { ...this.at, x: this.at.x + x, y: this.at.y + y };
    this.apply();
  }

  /** Moves so far that a place of the drawing is seen, large enough to be read. */
  reveal(place, halfWidth, halfHeight) {
    if (this.at.scale < 0.6) this.zoom(0.8 / this.at.scale);
    const { width, height } = this.room();
    const x = this.at.x + place.x * this.at.scale;
    const y = this.at.y + place.y * this.at.scale;
    const out = (value, half, room) =>
      value < half + 8 ? half + 8 - value : value > room - half - 8 ? room - half - 8 - value : 0;
    this.move(out(x, halfWidth * this.at.scale, width), out(y, halfHeight * this.at.scale, height));
  }

  room() {
    return { width: this.svg.clientWidth || 800, height: this.svg.clientHeight || 500 };
  }

  apply() {
    const { x, y, scale } = this.at;
    this.root.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    this.svg.classList.toggle("is-far", this.isFar());
  }

  /** Too far away to be read. */
  isFar() {
    return this.at.scale < 0.42;
  }

  listen() {
    const { svg } = this;
    // Until somebody moves it, it fits whatever room there is.
    new ResizeObserver(() => {
      if (this.size && !this.isMoved) this.fit(this.least);
    }).observe(svg);
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    svg.addEventListener("pointerdown", (event) => {
      if (event.button === 0) this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    svg.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      svg.addEventListener(end, (event) => {
        this.fingers.delete(event.pointerId);
        svg.classList.remove("is-dragged");
      });
    }
  }

  /** With Ctrl (or two fingers on a touchpad) nearer and farther; else what is outside comes in, and then the page scrolls. */
  wheel(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      const box = this.svg.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY / 300), { x: event.clientX - box.left, y: event.clientY - box.top });
      return;
    }
    const { width, height } = this.room();
    const { x, y, scale } = this.at;
    const within = (delta, start, length, room) =>
      delta < 0 ? Math.min(-delta, Math.max(0, 12 - start)) : -Math.min(delta, Math.max(0, start + length * scale - room + 12));
    const moved = { x: within(event.deltaX, x, this.size.width, width), y: within(event.deltaY, y, this.size.height, height) };
    if (moved.x || moved.y) {
      event.preventDefault();
      this.move(moved.x, moved.y);
    }
  }

  drag(event) {
    const last = this.fingers.get(event.pointerId);
    if (!last) return;
    const now = { x: event.clientX, y: event.clientY };
    if (this.fingers.size === 2) {
      const [other] = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const far = (at) => Math.hypot(at.x - other.x, at.y - other.y) || 1;
      const box = this.svg.getBoundingClientRect();
      this.zoom(far(now) / far(last), { x: (now.x + other.x) / 2 - box.left, y: (now.y + other.y) / 2 - box.top });
    } else if (Math.hypot(now.x - last.x, now.y - last.y) > 3 || this.svg.classList.contains("is-dragged")) {
      this.svg.classList.add("is-dragged");
      this.move(now.x - last.x, now.y - last.y);
    } else {
      return;
    }
    this.fingers.set(event.pointerId, now);
  }
}

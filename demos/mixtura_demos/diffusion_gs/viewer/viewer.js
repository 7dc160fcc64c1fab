// The viewer: an orbiting camera by mouse, touch and keyboard around Gaussians loaded from a .ply file's address.
//
// `new SplatViewer(element)` fills an element that holds a canvas and a line of text; `show(scene)` loads
// {url, c2w, up, fov, distance}: the first camera (4 x 4, OpenCV axes), what is up, the field of view in degrees, and how far ahead of
// the camera the point lies around which it turns (null: where the Gaussians' middle is).

const TURN = 5; // degrees of an arrow key
const STEEPEST = 89;
const ZOOM = 1.1;
const PER_PIXEL = 0.4; // degrees of a pixel's drag
const SPIN = 20; // degrees in a second
const SHARPEST = 2; // canvas pixels of a CSS pixel at most
const HELP = "Arrow keys or dragging turn, + and - or the wheel zoom, Home goes back, space spins";

const sum = (a, b, factor = 1) => a.map((value, k) => value + factor * b[k]);
const inner = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((value) => value / (Math.hypot(...a) || 1));
const radians = (degrees) => (degrees * Math.PI) / 180;

/** A camera that looks at `target` from angles and a distance; azimuth 0, elevation 0 is where `front` points. */
class Orbit {
  constructor({ c2w, up, fov, distance }, middle) {
    const [place, forward] = [3, 2].map((column) => [0, 1, 2].map((row) => c2w[row][column]));
    const ahead = distance ?? Math.max(inner(sum(middle, place, -1), forward), 0.1);
    this.up = unit(up);
    this.fov = fov;
    this.target = sum(place, forward, ahead);
    const back = forward.map((value) => -value);
    this.front = unit(sum(back, this.up, -inner(back, this.up)));
    this.side = cross(this.up, this.front);
    this.start = { azimuth: 0, elevation: (Math.asin(inner(back, this.up)) * 180) / Math.PI, distance: ahead };
    this.reset();
  }

  reset() {
    Object.assign(this, this.start);
  }

  turn(azimuth, elevation) {
    this.azimuth = (this.azimuth + azimuth) % 360;
    this.elevation = Math.min(STEEPEST, Math.max(-STEEPEST, this.elevation + elevation));
  }

  zoom(factor) {
    const least = 0.05 * this.start.distance;
    this.distance = Math.min(10 * this.start.distance, Math.max(least, this.distance * factor));
  }

  /** Axes, place and focal length for a picture of so many pixels. */
  camera(width, height) {
    const [turn, rise] = [radians(this.azimuth), radians(this.elevation)];
    const flat = sum(this.front.map((value) => value * Math.cos(turn)), this.side, Math.sin(turn));
    const back = sum(flat.map((value) => value * Math.cos(rise)), this.up, Math.sin(rise));
    const forward = back.map((value) => -value);
    const right = unit(cross(forward, this.up));
    const focal = Math.min(width, height) / 2 / Math.tan(radians(this.fov) / 2);
    return { right, forward, down: cross(forward, right), eye: sum(this.target, back, this.distance), focal };
  }
}

class SplatViewer {
  constructor(element) {
    this.canvas = element.querySelector("canvas");
    this.line = element.querySelector(".splat-line");
    this.painter = WebglPainter.on(this.canvas) ?? new CanvasPainter(this.canvas);
    this.pointers = new Map();
    this.listen();
    element.querySelector(".splat-reset").addEventListener("click", () => this.act("Home"));
    element.querySelector(".splat-spin").addEventListener("click", () => this.act(" "));
  }

  tell(text) {
    this.line.textContent = text;
  }

  /** Load a scene, or empty the viewer where it is null. What was being loaded before is given up. */
  async show(scene) {
    this.loading?.abort();
    this.spinning = false;
    this.splats = null;
    this.canvas.dataset.state = "empty";
    this.redraw();
    if (!scene) return this.tell("");
    const loading = (this.loading = new AbortController());
    this.tell("Loading …");
    try {
      const answer = await fetch(scene.url, { signal: loading.signal });
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const splats = new Splats(await answer.arrayBuffer());
      if (loading.signal.aborted) return;
      this.splats = splats;
      this.orbit = new Orbit(scene, splats.centre());
      this.upload();
      this.tell(`${splats.count.toLocaleString("en")} Gaussians, drawn ${this.painter.name === "WebGL" ? "by WebGL" : this.painter.name}. ${HELP}.`);
      this.redraw();
    } catch (error) {
      if (error.name !== "AbortError") this.tell(`The Gaussians can't be shown: ${error.message}.`);
    }
  }

  upload() {
    this.sorted = null;
    this.painter.load(this.splats);
    this.splats.colour([0, 0, 0]);
    this.painter.recolour(this.splats);
  }

  redraw() {
    this.frame ??= requestAnimationFrame((now) => {
      this.frame = null;
      this.paint(now);
    });
  }

  paint(now) {
    const sharpness = Math.min(window.devicePixelRatio || 1, SHARPEST);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((side) => Math.round(side * sharpness));
    if (!width || !height) return; // in a tab that isn't shown
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    if (this.spinning) {
      this.orbit.turn(Math.min(now - this.before, 100) * 0.001 * SPIN, 0);
      this.before = now;
      this.redraw();
    }
    const splats = this.splats ?? NOTHING;
    const camera = this.splats ? this.orbit.camera(width, height) : NOWHERE;
    if (this.splats) this.follow(camera);
    this.painter.draw(splats, camera, width, height);
    if (!this.splats) return;
    this.canvas.dataset.view = `${this.orbit.azimuth.toFixed(1)} ${this.orbit.elevation.toFixed(1)} ${this.orbit.distance.toFixed(3)}`;
    this.canvas.dataset.state = "shown";
  }

  /** Order and colours for a camera, where they change with it. */
  follow(camera) {
    if (!this.sorted || inner(this.sorted, camera.forward) < 1 - 1e-9) {
      this.sorted = camera.forward;
      this.splats.order(camera.forward);
      this.painter.reorder(this.splats);
    }
    if (this.splats.degree > 0) {
      this.splats.colour(camera.eye);
      this.painter.recolour(this.splats);
    }
  }

  /** What a key does; false for keys that do nothing. */
  act(key) {
    const turns = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, TURN], ArrowDown: [0, -TURN] };
    if (!this.splats) return false;
    if (key in turns) this.orbit.turn(...turns[key]);
    else if (key === "+" || key === "=") this.orbit.zoom(1 / ZOOM);
    else if (key === "-") this.orbit.zoom(ZOOM);
    else if (key === "Home") this.orbit.reset();
    else if (key === " ") {
      this.spinning = !this.spinning;
      this.before = performance.now();
    } else return false;
    this.redraw();
    return true;
  }

  listen() {
    const canvas = this.canvas;
    const on = (name, does) => canvas.addEventListener(name, does, { passive: false });
    on("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey && this.act(event.key)) event.preventDefault();
    });
    on("wheel", (event) => {
      if (!this.splats) return;
      event.preventDefault();
      this.orbit.zoom(ZOOM ** Math.sign(event.deltaY));
      this.redraw();
    });
    on("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.pointers.delete(event.pointerId));
    on("pointermove", (event) => this.drag(event));
    on("webglcontextlost", (event) => event.preventDefault());
    on("webglcontextrestored", () => {
      this.painter.prepare();
      if (this.splats) this.upload();
      this.redraw();
    });
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  /** One pointer turns, two zoom by their distance. */
  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.splats) return;
    const now = [event.clientX, event.clientY];
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
      this.orbit.zoom(Math.max(apart(before), 1) / Math.max(apart(now), 1));
    } else this.orbit.turn((before[0] - now[0]) * PER_PIXEL, (now[1] - before[1]) * PER_PIXEL);
    this.pointers.set(event.pointerId, now);
    this.redraw();
  }
}

const NOTHING = { count: 0, indices: [], places: [], colours: [] };
const NOWHERE = { right: [1, 0, 0], down: [0, 1, 0], forward: [0, 0, 1], eye: [0, 0, 0], focal: 1 };

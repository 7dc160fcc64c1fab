// Gaussians from a .ply file (layout of 3D Gaussian Splatting), their covariances, colours and order by depth.
//
// A `Splats` holds N Gaussians in typed arrays. `colour(eye)` evaluates the spherical harmonics for a camera's place, `order(forward)`
// sorts from the farthest to the nearest. Nothing here knows how they are drawn.

const SH_ZERO = 0.28209479177387814;
const SH_ONE = 0.4886025119029199;
const SH_TWO = [1.0925484305920792, 1.0925484305920792, 0.31539156525252005, 1.0925484305920792, 0.5462742152960396];
const SH_THREE = [
  0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 0.4570457994644658, 1.445305721320277,
  0.5900435899266435,
];
const SORT_LEVELS = 65536;

/** Name -> offset in bytes of the vertices' properties, their size, their number, and where they start. Throws what is wrong. */
function plyHeader(bytes) {
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, 16384));
  const end = text.indexOf("end_header\n");
  if (!text.startsWith("ply\n") || end < 0) throw new Error("not a .ply file");
  const offsets = new Map();
  let size = 0;
  let count = 0;
  for (const line of text.slice(0, end).split("\n")) {
    const words = line.trim().split(/\s+/);
    if (words[0] === "format" && words[1] !== "binary_little_endian") throw new Error(`a .ply file as ${words[1]}`);
    if (words[0] === "element" && words[1] === "vertex") count = Number(words[2]);
    if (words[0] === "property") {
      if (words[1] !== "float" && words[1] !== "float32") throw new Error(`a property of type ${words[1]}, expected float`);
      offsets.set(words[2], size);
      size += 4;
    }
  }
  return { offsets, size, count, start: end + "end_header\n".length };
}

class Splats {
  /** From the content of a file, an ArrayBuffer. Throws an Error that says what is wrong. */
  constructor(buffer) {
    const { offsets, size, count, start } = plyHeader(new Uint8Array(buffer));
    if (start + size * count > buffer.byteLength) throw new Error("the .ply file is cut short");
    const view = new DataView(buffer, start);
    const column = (name) => {
      if (!offsets.has(name)) throw new Error(`no Gaussians: the vertices lack ${name}`);
      const values = new Float32Array(count);
      for (let i = 0, at = offsets.get(name); i < count; i++, at += size) values[i] = view.getFloat32(at, true);
      return values;
    };
    const columns = (names) => names.map(column);
    this.count = count;
    this.places = columns(["x", "y", "z"]);
    this.opacities = column("opacity").map((logit) => 1 / (1 + Math.exp(-logit)));
    this.covariances = covariances(columns(["scale_0", "scale_1", "scale_2"]), columns(["rot_0", "rot_1", "rot_2", "rot_3"]));
    const rest = [...offsets.keys()].filter((name) => name.startsWith("f_rest_")).length;
    this.degree = Math.sqrt(rest / 3 + 1) - 1;
    if (![0, 1, 2, 3].includes(this.degree)) throw new Error(`${rest} columns f_rest; 0, 9, 24 or 45 belong to a whole degree`);
    this.zeroth = columns(["f_dc_0", "f_dc_1", "f_dc_2"]);
    this.higher = columns(Array.from({ length: rest }, (_, i) => `f_rest_${i}`));
    this.colours = new Float32Array(3 * count);
    this.indices = new Uint32Array(count);
    this.depths = new Float32Array(count);
    this.keys = new Uint16Array(count);
  }

  /** Colours (3 N), not below 0, as seen from `eye`; one colour from all sides where the degree is 0. */
  colour(eye) {
    const weights = new Float64Array(15);
    const bands = (this.degree + 1) ** 2 - 1;
    const [x, y, z] = this.places;
    for (let i = 0; i < this.count; i++) {
      if (bands) harmonics(weights, x[i] - eye[0], y[i] - eye[1], z[i] - eye[2], this.degree);
      for (let c = 0; c < 3; c++) {
        let value = 0.5 + SH_ZERO * this.zeroth[c][i];
        for (let k = 0; k < bands; k++) value += weights[k] * this.higher[c * bands + k][i];
        this.colours[3 * i + c] = Math.max(value, 0);
      }
    }
    return this.colours;
  }

  /** Indices (N) from the farthest to the nearest along a direction: a counting sort of depths in 65536 levels. */
  order(forward) {
    const { depths, keys, indices, count } = this;
    const [x, y, z] = this.places;
    let low = Infinity;
    let high = -Infinity;
    for (let i = 0; i < count; i++) {
      const depth = forward[0] * x[i] + forward[1] * y[i] + forward[2] * z[i];
      depths[i] = depth;
      if (depth < low) low = depth;
      if (depth > high) high = depth;
    }
    const scale = (SORT_LEVELS - 1) / Math.max(high - low, 1e-9);
    const starts = new Uint32Array(SORT_LEVELS + 1);
    for (let i = 0; i < count; i++) {
      keys[i] = (high - depths[i]) * scale;
      starts[keys[i] + 1]++;
    }
    for (let level = 0; level < SORT_LEVELS; level++) starts[level + 1] += starts[level];
    for (let i = 0; i < count; i++) indices[starts[keys[i]]++] = i;
    return indices;
  }

  /** A point that the Gaussians lie around: the median of their places, axis by axis. */
  centre() {
    return this.places.map((axis) => Float32Array.from(axis).sort()[this.count >> 1] ?? 0);
  }
}

/** Upper triangles xx, xy, xz, yy, yz, zz (6 N) of R S S R', from logarithms of axes and quaternions w, x, y, z of any length. */
function covariances(logs, quaternions) {
  const count = logs[0].length;
  const found = new Float32Array(6 * count);
  const half = new Float64Array(9);
  for (let i = 0; i < count; i++) {
    const length = Math.hypot(...quaternions.map((part) => part[i])) || 1;
    const [w, x, y, z] = quaternions.map((part) => part[i] / length);
    const rows = [
      [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
      [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
      [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ];
    for (let k = 0; k < 9; k++) half[k] = rows[(k / 3) | 0][k % 3] * Math.exp(logs[k % 3][i]);
    let at = 6 * i;
    for (let a = 0; a < 3; a++) {
      for (let b = a; b < 3; b++) {
        found[at++] = half[3 * a] * half[3 * b] + half[3 * a + 1] * half[3 * b + 1] + half[3 * a + 2] * half[3 * b + 2];
      }
    }
  }
  return found;
}

/** Real spherical harmonics of degree 1 up to `degree` in a direction of any length, into `weights`. */
function harmonics(weights, dx, dy, dz, degree) {
  const length = Math.hypot(dx, dy, dz) || 1;
  const [x, y, z] = [dx / length, dy / length, dz / length];
  weights[0] = -SH_ONE * y;
  weights[1] = SH_ONE * z;
  weights[2] = -SH_ONE * x;
  if (degree < 2) return;
  weights[3] = SH_TWO[0] * x * y;
  weights[4] = -SH_TWO[1] * y * z;
  weights[5] = SH_TWO[2] * (2 * z * z - x * x - y * y);
  weights[6] = -SH_TWO[3] * x * z;
  weights[7] = SH_TWO[4] * (x * x - y * y);
  if (degree < 3) return;
  weights[8] = -SH_THREE[0] * y * (3 * x * x - y * y);
  weights[9] = SH_THREE[1] * x * y * z;
  weights[10] = -SH_THREE[2] * y * (4 * z * z - x * x - y * y);
  weights[11] = SH_THREE[3] * z * (2 * z * z - 3 * x * x - 3 * y * y);
  weights[12] = -SH_THREE[4] * x * (4 * z * z - x * x - y * y);
  weights[13] = SH_THREE[5] * z * (x * x - y * y);
  weights[14] = -SH_THREE[6] * x * (x * x - 3 * y * y);
}

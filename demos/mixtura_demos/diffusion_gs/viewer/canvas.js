// Gaussians drawn by plain JavaScript onto a 2D canvas, for browsers without WebGL2. The same rules as in webgl.js, pixel by pixel.

class CanvasPainter {
  constructor(canvas) {
    this.context = canvas.getContext("2d", { alpha: false });
    this.name = "without WebGL";
  }

  prepare() {}
  load() {}
  recolour() {}
  reorder() {}

  /** Draw over white, from the farthest to the nearest. */
  draw(splats, camera, width, height) {
    const picture = this.context.createImageData(width, height);
    const sums = new Float32Array(3 * width * height).fill(1);
    for (let k = 0; k < splats.count; k++) {
      const splat = projected(splats, splats.indices[k], camera, width, height);
      if (splat) this.blend(sums, width, height, splat);
    }
    for (let i = 0, n = width * height; i < n; i++) {
      for (let c = 0; c < 3; c++) picture.data[4 * i + c] = 255 * sums[3 * i + c];
      picture.data[4 * i + 3] = 255;
    }
    this.context.putImageData(picture, 0, 0);
  }

  blend(sums, width, height, { x, y, a, b, c, reachX, reachY, opacity, colour, at }) {
    const left = Math.max(0, Math.ceil(x - reachX - 0.5));
    const right = Math.min(width - 1, Math.floor(x + reachX - 0.5));
    const bottom = Math.min(height - 1, Math.floor(y + reachY - 0.5));
    for (let row = Math.max(0, Math.ceil(y - reachY - 0.5)); row <= bottom; row++) {
      const dy = row + 0.5 - y;
      for (let column = left; column <= right; column++) {
        const dx = column + 0.5 - x;
        const alpha = Math.min(0.99, opacity * Math.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy));
        if (alpha < 1 / 255) continue;
        const pixel = 3 * (row * width + column);
        for (let k = 0; k < 3; k++) sums[pixel + k] += alpha * (colour[at + k] - sums[pixel + k]);
      }
    }
  }
}

/** A Gaussian on the screen: place, inverse covariance (a b; b c), half width and height of where it shows; null if it doesn't. */
function projected(splats, i, camera, width, height) {
  const opacity = splats.opacities[i];
  const room = 2 * Math.log(255 * opacity);
  const away = splats.places.map((axis, k) => axis[i] - camera.eye[k]);
  const dot = (axis) => axis[0] * away[0] + axis[1] * away[1] + axis[2] * away[2];
  const z = dot(camera.forward);
  if (z < NEAR || !(room > 0)) return null;
  const slopes = [dot(camera.right) / z, dot(camera.down) / z];
  const limited = slopes.map((slope, k) => {
    const most = (1.3 * 0.5 * [width, height][k]) / camera.focal;
    return Math.min(Math.max(slope, -most), most);
  });
  const scale = camera.focal / z;
  const one = camera.right.map((value, k) => scale * (value - limited[0] * camera.forward[k]));
  const two = camera.down.map((value, k) => scale * (value - limited[1] * camera.forward[k]));
  const s = splats.covariances;
  const o = 6 * i;
  const form = (p, q) =>
    p[0] * (s[o] * q[0] + s[o + 1] * q[1] + s[o + 2] * q[2]) +
    p[1] * (s[o + 1] * q[0] + s[o + 3] * q[1] + s[o + 4] * q[2]) +
    p[2] * (s[o + 2] * q[0] + s[o + 4] * q[1] + s[o + 5] * q[2]);
  const xx = form(one, one) + 0.3;
  const xy = form(one, two);
  const yy = form(two, two) + 0.3;
  const determinant = xx * yy - xy * xy;
  if (!(determinant > 0)) return null;
  return {
    x: 0.5 * width + camera.focal * slopes[0],
    y: 0.5 * height + camera.focal * slopes[1],
    a: yy / determinant,
    b: -xy / determinant,
    c: xx / determinant,
    reachX: Math.sqrt(room * xx),
    reachY: Math.sqrt(room * yy),
    opacity,
    colour: splats.colours,
    at: 3 * i,
  };
}

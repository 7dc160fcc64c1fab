// Gaussians drawn by WebGL2: one instanced quad for each, blended from the farthest to the nearest.
//
// The rules are those of the project's rasteriser: variance 0.3 of a pixel added to both axes of a splat, nothing below an alpha of
// 1/255, no alpha above 0.99, colours blended as they are stored.

const ROW = 1024; // Gaussians in a row of the textures
const NEAR = 0.01;

const VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D shapes; // three texels each: place and opacity; xx xy xz yy; yz zz
uniform sampler2D colours;
uniform mat3 axes; // rows: right, down, forward
uniform vec3 eye;
uniform vec2 size; // pixels
uniform float focal;
in uint which;
out vec2 offset;
flat out vec4 paint;

void main() {
  ivec2 at = ivec2(int(which % ${ROW}u), int(which / ${ROW}u));
  vec4 place = texelFetch(shapes, ivec2(3 * at.x, at.y), 0);
  vec4 one = texelFetch(shapes, ivec2(3 * at.x + 1, at.y), 0);
  vec4 two = texelFetch(shapes, ivec2(3 * at.x + 2, at.y), 0);
  vec3 p = axes * (place.xyz - eye);
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0); // outside: not drawn
  paint = vec4(texelFetch(colours, at, 0).rgb, place.w);
  offset = vec2(0.0);
  float room = 2.0 * log(255.0 * place.w);
  if (p.z < ${NEAR} || room <= 0.0) return;

  mat3 world = mat3(one.x, one.y, one.z, one.y, one.w, two.x, one.z, two.x, two.y);
  vec2 slope = p.xy / p.z;
  vec2 most = 1.3 * 0.5 * size / focal;
  slope = clamp(slope, -most, most);
  vec3 a = vec3(1.0, 0.0, -slope.x) * axes * (focal / p.z);
  vec3 b = vec3(0.0, 1.0, -slope.y) * axes * (focal / p.z);
  float xx = dot(a, world * a) + 0.3;
  float yy = dot(b, world * b) + 0.3;
  float xy = dot(a, world * b);
  float middle = 0.5 * (xx + yy);
  float apart = length(vec2(0.5 * (xx - yy), xy));
  float large = middle + apart;
  float small = max(middle - apart, 0.1);
  vec2 direction = abs(xy) < 1e-9 ? (xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(xy, large - xx));
  vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1)) * 2.0 - 1.0;
  offset = corner * sqrt(room);
  vec2 pixel = 0.5 * size + focal * p.xy / p.z;
  pixel += offset.x * sqrt(large) * direction + offset.y * sqrt(small) * vec2(-direction.y, direction.x);
  gl_Position = vec4(vec2(2.0, -2.0) * pixel / size + vec2(-1.0, 1.0), 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
flat in vec4 paint;
out vec4 result;

void main() {
  float alpha = min(0.99, paint.a * exp(-0.5 * dot(offset, offset)));
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(paint.rgb * alpha, alpha);
}`;

class WebglPainter {
  /** Null where the browser has no WebGL2. */
  static on(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, depth: false, preserveDrawingBuffer: true });
    return gl ? new WebglPainter(gl) : null;
  }

  constructor(gl) {
    this.gl = gl;
    this.name = "WebGL";
    this.prepare();
  }

  /** Programs and buffers; again when a lost context is back. */
  prepare() {
    const gl = this.gl;
    this.program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`the shaders don't link: ${gl.getProgramInfoLog(this.program)}`);
    }
    gl.useProgram(this.program);
    this.at = (name) => gl.getUniformLocation(this.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    const which = gl.getAttribLocation(this.program, "which");
    gl.enableVertexAttribArray(which);
    gl.vertexAttribIPointer(which, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(which, 1);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.uniform1i(this.at("shapes"), 0);
    gl.uniform1i(this.at("colours"), 1);
    [0, 1].forEach((unit) => this.texture(unit));
    this.sheet = gl.getExtension("EXT_color_buffer_float") && gl.createFramebuffer();
    this.sides = null;
  }

  /** Where to draw: half floats, for bytes round at every Gaussian and cut colours above 1; the screen itself without them. */
  target(width, height) {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.sheet || null);
    if (!this.sheet || this.sides === `${width} ${height}`) return;
    this.sides = `${width} ${height}`;
    gl.deleteRenderbuffer(this.paper ?? null);
    this.paper = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, this.paper);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.RGBA16F, width, height);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.RENDERBUFFER, this.paper);
  }

  /** Bring what was drawn to the screen. */
  present(width, height) {
    const gl = this.gl;
    if (!this.sheet) return;
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, this.sheet);
    gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, null);
    gl.blitFramebuffer(0, 0, width, height, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.NEAREST);
  }

  texture(unit) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
  }

  fill(unit, columns, rows, values) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, columns, rows, 0, gl.RGBA, gl.FLOAT, values);
  }

  /** Take Gaussians in. */
  load(splats) {
    const rows = Math.max(1, Math.ceil(splats.count / ROW));
    const values = new Float32Array(12 * ROW * rows);
    for (let i = 0; i < splats.count; i++) {
      for (let axis = 0; axis < 3; axis++) values[12 * i + axis] = splats.places[axis][i];
      values[12 * i + 3] = splats.opacities[i];
      values.set(splats.covariances.subarray(6 * i, 6 * i + 6), 12 * i + 4);
    }
    this.fill(0, 3 * ROW, rows, values);
  }

  /** Take new colours in. */
  recolour(splats) {
    const rows = Math.max(1, Math.ceil(splats.count / ROW));
    const values = new Float32Array(4 * ROW * rows);
    for (let i = 0; i < splats.count; i++) values.set(splats.colours.subarray(3 * i, 3 * i + 3), 4 * i);
    this.fill(1, ROW, rows, values);
  }

  /** Take a new order in. */
  reorder(splats) {
    this.gl.bufferData(this.gl.ARRAY_BUFFER, splats.indices, this.gl.DYNAMIC_DRAW);
  }

  /** Draw over white. */
  draw(splats, camera, width, height) {
    const gl = this.gl;
    this.target(width, height);
    gl.viewport(0, 0, width, height);
    gl.clearColor(1, 1, 1, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const rows = [camera.right, camera.down, camera.forward];
    const columnwise = [0, 1, 2].flatMap((column) => rows.map((row) => row[column]));
    gl.uniformMatrix3fv(this.at("axes"), false, columnwise);
    gl.uniform3fv(this.at("eye"), camera.eye);
    gl.uniform2f(this.at("size"), width, height);
    gl.uniform1f(this.at("focal"), camera.focal);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, splats.count);
    this.present(width, height);
  }
}

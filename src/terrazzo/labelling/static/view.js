// Where the image lies on the screen: scale and corner, in pixels of CSS; `ratio` of the screen's own for each of them.

const LARGEST = 64; // screen pixels for one of the image

export class View {
  constructor(width, height) {
    Object.assign(this, { imageWidth: width, imageHeight: height, width: 1, height: 1, ratio: 1, scale: 1, x: 0, y: 0 });
    this.isFitted = true; // follows the window until somebody zooms or pans
    this.changed = () => {};
  }

  // Take the stage's size: pixels of CSS, and device pixels for each of them.
  resize(width, height, ratio) {
    const centre = this.toImage(this.width / 2, this.height / 2);
    Object.assign(this, { width: Math.max(1, width), height: Math.max(1, height), ratio });
    if (this.isFitted) this.fit();
    else this.centre(...centre);
  }

  toImage(sx, sy) {
    return [(sx - this.x) / this.scale, (sy - this.y) / this.scale];
  }

  toScreen(x, y) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  get fitting() {
    return Math.min(this.width / this.imageWidth, this.height / this.imageHeight);
  }

  // The whole image, as large as it goes; small images stay at 8 times at most.
  fit() {
    const scale = Math.min(this.fitting * 0.98, 8);
    this.put(scale, (this.width - scale * this.imageWidth) / 2, (this.height - scale * this.imageHeight) / 2, true);
  }

  // One pixel of the image on one of the screen, around the middle.
  actual() {
    this.zoomAt(this.width / 2, this.height / 2, 1 / this.ratio / this.scale);
  }

  // Zoom so that what lies at (sx, sy) on the screen stays there.
  zoomAt(sx, sy, factor) {
    const scale = Math.max(Math.min(this.fitting / 2, 1 / this.ratio), Math.min(LARGEST, this.scale * factor));
    const [x, y] = this.toImage(sx, sy);
    this.put(scale, sx - x * scale, sy - y * scale);
  }

  pan(dx, dy) {
    this.put(this.scale, this.x + dx, this.y + dy);
  }

  centre(x, y) {
    this.put(this.scale, this.width / 2 - x * this.scale, this.height / 2 - y * this.scale);
  }

  // Show {x0, y0, x1, y1} of the image with a margin.
  zoomTo({ x0, y0, x1, y1 }) {
    const room = 0.7 * Math.min(this.width / Math.max(1, x1 - x0), this.height / Math.max(1, y1 - y0));
    this.scale = Math.max(Math.min(this.fitting, 1), Math.min(8, room));
    this.centre((x0 + x1) / 2, (y0 + y1) / 2);
  }

  // The part of the image that is seen, in whole pixels.
  get seen() {
    const [x0, y0] = this.toImage(0, 0), [x1, y1] = this.toImage(this.width, this.height);
    return {
      x0: Math.max(0, Math.floor(x0)), y0: Math.max(0, Math.floor(y0)),
      x1: Math.min(this.imageWidth, Math.ceil(x1)), y1: Math.min(this.imageHeight, Math.ceil(y1)),
    };
  }

  // A corner that is a whole device pixel keeps edges sharp; some of the image always stays on the screen.
  put(scale, x, y, isFitted = false) {
    const inside = (corner, image, stage) => Math.max(40 - image * scale, Math.min(stage - 40, corner));
    const whole = (corner) => Math.round(corner * this.ratio) / this.ratio;
    this.scale = scale;
    this.x = whole(inside(x, this.imageWidth, this.width));
    this.y = whole(inside(y, this.imageHeight, this.height));
    this.isFitted = isFitted;
    this.changed();
  }
}

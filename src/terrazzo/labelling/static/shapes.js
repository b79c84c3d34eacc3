// Which pixels a brush covers: those whose centre lies within half its size of the pointer's path, row by row.

// Call run(y, x0, x1) for each row of a disc of `size` pixels that is moved from (ax, ay) to (bx, by).
export function sweepDisc(ax, ay, bx, by, size, run) {
  if (size < 2) {
    sweepPixel(ax, ay, bx, by, run);
    return;
  }
  const r = size / 2, dx = bx - ax, dy = by - ay, length2 = dx * dx + dy * dy;
  const isIn = (x, y) => {
    const t = length2 === 0 ? 0 : Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / length2));
    const ex = x - (ax + t * dx), ey = y - (ay + t * dy);
    return ex * ex + ey * ey <= r * r;
  };
  for (let row = Math.ceil(Math.min(ay, by) - r - 0.5); row + 0.5 <= Math.max(ay, by) + r; row += 1) {
    const y = row + 0.5;
    let left = Infinity, right = -Infinity;
    for (const [cx, cy] of [[ax, ay], [bx, by]]) {
      const h2 = r * r - (y - cy) * (y - cy);
      if (h2 < 0) continue;
      const half = Math.sqrt(h2);
      left = Math.min(left, cx - half);
      right = Math.max(right, cx + half);
    }
    if (length2 > 0) {
      const length = Math.sqrt(length2), nx = -dy / length * r, ny = dx / length * r;
      for (const side of [1, -1]) { // where the row crosses the two long sides
        if (dy === 0) continue;
        const t = (y - ay - side * ny) / dy;
        if (t < 0 || t > 1) continue;
        const x = ax + side * nx + t * dx;
        left = Math.min(left, x);
        right = Math.max(right, x);
      }
    }
    if (left > right) continue;
    let x0 = Math.ceil(left - 0.5), x1 = Math.floor(right - 0.5); // then to the pixel, by the definition itself
    while (x0 <= x1 + 1 && !isIn(x0 + 0.5, y)) x0 += 1;
    while (isIn(x0 - 0.5, y)) x0 -= 1;
    while (x1 >= x0 && !isIn(x1 + 0.5, y)) x1 -= 1;
    while (isIn(x1 + 1.5, y)) x1 += 1;
    if (x0 <= x1) run(row, x0, x1 + 1);
  }
}

// The same of a square with sides of `size` pixels.
export function sweepSquare(ax, ay, bx, by, size, run) {
  if (size < 2) {
    sweepPixel(ax, ay, bx, by, run);
    return;
  }
  const r = size / 2;
  for (let row = Math.ceil(Math.min(ay, by) - r - 0.5); row + 0.5 <= Math.max(ay, by) + r; row += 1) {
    const y = row + 0.5;
    let t0 = 0, t1 = 1; // the part of the path from which the row is reached
    if (by !== ay) {
      const [near, far] = [(y - r - ay) / (by - ay), (y + r - ay) / (by - ay)].sort((a, b) => a - b);
      [t0, t1] = [Math.max(0, near), Math.min(1, far)];
    } else if (Math.abs(y - ay) > r) {
      continue;
    }
    if (t0 > t1) continue;
    const [p, q] = [ax + t0 * (bx - ax), ax + t1 * (bx - ax)];
    const x0 = Math.ceil(Math.min(p, q) - r - 0.5), x1 = Math.floor(Math.max(p, q) + r - 0.5);
    if (x0 <= x1) run(row, x0, x1 + 1);
  }
}

// The pixels on the way from one to another, without a gap.
function sweepPixel(ax, ay, bx, by, run) {
  let x = Math.floor(ax), y = Math.floor(ay);
  const toX = Math.floor(bx), toY = Math.floor(by);
  const dx = Math.abs(toX - x), dy = -Math.abs(toY - y), sx = x < toX ? 1 : -1, sy = y < toY ? 1 : -1;
  for (let error = dx + dy; ;) {
    run(y, x, x + 1);
    if (x === toX && y === toY) return;
    const twice = 2 * error;
    if (twice >= dy) { error += dy; x += sx; }
    if (twice <= dx) { error += dx; y += sy; }
  }
}

// Call run(y, x0, x1) for the pixels whose centre lies in a polygon, by the even-odd rule; points: [[x, y], …].
export function fillPolygon(points, run) {
  if (points.length < 3) return;
  let top = Infinity, bottom = -Infinity;
  for (const [, y] of points) {
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  }
  for (let row = Math.ceil(top - 0.5); row + 0.5 <= bottom; row += 1) {
    const y = row + 0.5, crossings = [];
    for (let i = 0, j = points.length - 1; i < points.length; j = i, i += 1) {
      const [ax, ay] = points[j], [bx, by] = points[i];
      if (ay <= y !== by <= y) crossings.push(ax + ((y - ay) / (by - ay)) * (bx - ax));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const x0 = Math.ceil(crossings[i] - 0.5), x1 = Math.ceil(crossings[i + 1] - 0.5);
      if (x0 < x1) run(row, x0, x1);
    }
  }
}

// From the server's layers (red + 256 green: the class id; blue: the confidence) to what is drawn.

const SIDE = 1600; // pixels of the longer side that are drawn; files and answers keep their own size
const SURE = [40, 120, 160], UNSURE = [255, 196, 0], LOST = [226, 40, 90]; // colours of confidence

// The size at which an image is drawn.
export function shownSize(width, height) {
  const factor = Math.min(1, SIDE / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
}

// Decode layers at the size they are drawn at: {width, height, full, ids, confidence, shares}. No pixel is blended.
export async function readLayers(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const full = { width: bitmap.width, height: bitmap.height };
  const { width, height } = shownSize(full.width, full.height);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const ids = new Uint16Array(width * height), confidence = new Uint8Array(width * height);
  for (let i = 0, at = 0; i < ids.length; i += 1, at += 4) {
    ids[i] = data[at] | (data[at + 1] << 8);
    confidence[i] = data[at + 2];
  }
  return { width, height, full, ids, confidence };
}

// Share of the pixels of each class that is there, largest first: [{id, share}].
export function shares(layers) {
  const counts = new Map();
  for (const id of layers.ids) counts.set(id, (counts.get(id) ?? 0) + 1);
  return [...counts].map(([id, count]) => ({ id, share: count / layers.ids.length })).sort((a, b) => b.share - a.share);
}

// Draw the layers over nothing: colours with edges, colours alone, or how sure the model is. `only`: one class, others faint.
export function paint(canvas, layers, colors, { view, strength, only }) {
  const { width, height, ids, confidence } = layers;
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  const { data } = image;
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      const at = 4 * i, id = ids[i];
      let color, alpha;
      if (view === "confidence") {
        [color, alpha] = [ramp(confidence[i] / 255), 235];
      } else {
        const isEdge = (x > 0 && ids[i - 1] !== id) || (y > 0 && ids[i - width] !== id);
        color = colors[id] ?? [128, 128, 128];
        alpha = view === "classes" || isEdge ? 255 : Math.round(255 * strength);
      }
      if (only !== null && id !== only) alpha = Math.round(alpha * 0.12);
      data[at] = color[0];
      data[at + 1] = color[1];
      data[at + 2] = color[2];
      data[at + 3] = alpha;
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function ramp(sure) {
  const [from, to, share] = sure < 0.5 ? [LOST, UNSURE, sure * 2] : [UNSURE, SURE, sure * 2 - 1];
  return from.map((value, channel) => value + (to[channel] - value) * share);
}

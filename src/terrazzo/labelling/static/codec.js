// Labels on their way: zlib by the browser's own streams, little-endian uint16, base64. What does not unpack to exactly
// the size it must have is an error; a tile is never guessed.

export async function deflate(bytes) {
  const parts = await through(new CompressionStream("deflate"), bytes);
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  return joined(parts, size);
}

// Unpack to exactly `size` bytes.
export async function inflate(bytes, size) {
  const parts = await through(new DecompressionStream("deflate"), bytes, size);
  const found = parts.reduce((sum, part) => sum + part.length, 0);
  if (found !== size) throw new Error(`A tile of the label holds ${found} bytes instead of ${size}.`);
  return joined(parts, size);
}

export async function inflateIds(bytes, pixels) {
  return new Uint16Array((await inflate(bytes, 2 * pixels)).buffer);
}

export function deflateIds(ids) {
  return deflate(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength));
}

// The blocks of a stream in which each is a uint32 LE length and as many bytes.
export function blocks(buffer) {
  const view = new DataView(buffer), found = [];
  for (let at = 0; at < buffer.byteLength;) {
    if (at + 4 > buffer.byteLength) throw new Error("The label ends in the middle of a tile.");
    const length = view.getUint32(at, true);
    if (at + 4 + length > buffer.byteLength) throw new Error("The label ends in the middle of a tile.");
    found.push(new Uint8Array(buffer, at + 4, length));
    at += 4 + length;
  }
  return found;
}

export function toBase64(bytes) {
  if (bytes.toBase64) return bytes.toBase64();
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
}

async function through(stream, bytes, most = Infinity) {
  const writer = stream.writable.getWriter(), reader = stream.readable.getReader();
  const written = Promise.all([writer.write(bytes), writer.close()]);
  written.catch(() => {}); // the reader tells it
  const parts = [];
  let size = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    if (size > most) {
      reader.cancel().catch(() => {});
      throw new Error(`A tile of the label holds more than ${most} bytes.`);
    }
  }
  await written;
  return parts;
}

function joined(parts, size) {
  if (parts.length === 1 && parts[0].byteOffset === 0 && parts[0].buffer.byteLength === size) return parts[0];
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

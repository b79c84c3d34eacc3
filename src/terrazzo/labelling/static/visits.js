// To a place in an image: the editor opens there, whether it is open already or not.

import { go } from "./routes.js";
import { state, watch } from "./state.js";

let end = null;

export function visit(project, id, { left, y, width, height }) {
  end?.();
  end = null;
  const show = () => {
    if (!state.editor || state.editor.sample.id !== id) return;
    const margin = 8 + Math.round(0.1 * Math.max(width, height));
    // a page that has just been laid out is fitted once more
    requestAnimationFrame(() => state.editor?.view.zoomTo({ x0: left - margin, y0: y - margin, x1: left + width + margin, y1: y + height + margin }));
    end?.();
    end = null;
  };
  go(project, id);
  end = watch(["editor"], show, { now: false });
  show();
}

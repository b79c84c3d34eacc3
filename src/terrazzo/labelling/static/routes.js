// The addresses of screens: hrefOf() all projects, hrefOf("street") one, hrefOf("street", 7) its sample 7 in the editor.

export function hrefOf(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export function go(...parts) {
  location.hash = hrefOf(...parts);
}

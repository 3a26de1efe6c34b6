// Draws what experts saw over the picture. Experts see a square with the picture in its middle; their places are shares
// of that square.

const COLOURS = ["#66ccee", "#ee8866", "#eedd88", "#6ec878", "#ff8cbe", "#aaaaff", "#bbcc33", "#ebebeb"];
const BACKGROUND = ".";
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

export function draw(canvas, picture, readings) {
  const pen = canvas.getContext("2d");
  const scale = Math.max(1, Math.min(8, 640 / Math.max(picture.width, picture.height)));
  canvas.width = Math.round(picture.width * scale);
  canvas.height = Math.round(picture.height * scale);
  pen.imageSmoothingEnabled = scale < 2;
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const side = Math.max(canvas.width, canvas.height);
  const square = { side, left: (canvas.width - side) / 2, top: (canvas.height - side) / 2 };
  for (const reading of readings) {
    if (reading.mask) drawMask(pen, square, reading.mask);
    drawBoxes(pen, square, reading);
  }
}

function drawMask(pen, square, rows) {
  const size = square.side / rows.length;
  pen.globalAlpha = 0.45;
  rows.forEach((row, y) => {
    [...row].forEach((letter, x) => {
      if (letter === BACKGROUND) return;
      pen.fillStyle = COLOURS[LETTERS.indexOf(letter) % COLOURS.length];
      pen.fillRect(square.left + x * (square.side / row.length), square.top + y * size, square.side / row.length + 1, size + 1);
    });
  });
  pen.globalAlpha = 1;
}

function drawBoxes(pen, square, reading) {
  const letter = Math.max(12, Math.round(square.side / 32));
  pen.font = `${letter}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  reading.boxes.forEach(([x0, y0, x1, y1], number) => {
    const left = square.left + x0 * square.side, top = square.top + y0 * square.side;
    pen.strokeStyle = pen.fillStyle = COLOURS[number % COLOURS.length];
    pen.lineWidth = Math.max(2, square.side / 240);
    pen.strokeRect(left, top, (x1 - x0) * square.side, (y1 - y0) * square.side);
    const label = reading.labels[number] ?? "";
    if (!label) return;
    pen.fillRect(left, top, pen.measureText(label).width + 8, letter + 4);
    pen.fillStyle = "#16181d";
    pen.fillText(label, left + 4, top + 2);
  });
}

export function words(reading) {
  if (reading.caption) return reading.caption;
  if (!reading.labels.length) return "nothing";
  return reading.labels.map((label, i) => `${label} ${Math.round(100 * (reading.scores[i] ?? 1))} %`).join(", ");
}

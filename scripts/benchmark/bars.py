"""An SVG of bars, by hand: a handful needs no library. Rows of cases, a column for each figure, one bar for each contender."""

from page import median

BAR, COLUMN, LEFT = 11, 330, 250  # height of a bar; what the end of a scale is wide, and the titles, in pixels


def _bar(value, end, x, y, color):
    """One bar with its figure; a word instead where there is none."""
    if isinstance(value, str):
        return f'<text x="{x}" y="{y + BAR - 2}" fill="{color}">{value}</text>'
    width = min(1.0, value / end) * COLUMN
    digits = 2 if value < 1 else 1 if value < 100 else 0
    return (f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{color}"/>'
            f'<text x="{x + width + 3:.1f}" y="{y + BAR - 2}">{value:.{digits}f}</text>')


def value(runs, figure, done):
    """Of one bar: the median of the runs with the outcome `done`, or a word where there is none."""
    good = [one for one in runs if one.outcome == done]
    if good:
        return median(good, figure)
    return "never" if any(one.outcome == "never" for one in runs) else "failed" if runs else ""


def plot(titles, contenders, columns, value_of):
    """`titles`: {row's name: title}; `contenders`: (name, colour); `columns`: (figure's name, title, end of the scale).
    `value_of(row's name, contender, figure's name)`: a number, or a word."""
    step, row_height = COLUMN + 60, len(contenders) * BAR + 12
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + len(columns) * step}" '
           f'height="{44 + len(titles) * row_height}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>']
    for index, (name, color) in enumerate(contenders):
        out.append(f'<rect x="{LEFT + index * 190}" y="6" width="9" height="9" fill="{color}"/>'
                   f'<text x="{LEFT + 13 + index * 190}" y="15">{name}</text>')
    out += [f'<text x="{LEFT + column * step}" y="34" font-weight="bold">{title} (0 to {end})</text>'
            for column, (_, title, end) in enumerate(columns)]
    for index, (row, title) in enumerate(titles.items()):
        top = 42 + index * row_height
        out.append(f'<text x="6" y="{top + 2 * BAR}">{title}</text>')
        out += [_bar(value_of(row, name, figure), end, LEFT + column * step, top + place * BAR, color)
                for place, (name, color) in enumerate(contenders) for column, (figure, _, end) in enumerate(columns)]
    return "\n".join(out + ["</svg>"]) + "\n"

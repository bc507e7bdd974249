"""The tables that commands print, as numbers."""


def printed_rows(text: str) -> dict[str, list[float]]:
    """Of each row of figures, by what its first cell says; a dash, where nothing counts, is -1."""
    rows = {}
    for line in text.splitlines():
        name, *values = (cell.strip() for cell in line.strip('|').split('|'))
        if line.startswith('|') and values and all(value == '–' or value[0].isdigit() for value in values):
            rows[name] = [-1.0 if value == '–' else float(value) for value in values]
    return rows

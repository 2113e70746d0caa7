"""Print the table of the last `make matrix`: `python -m tests.matrix.table`."""

import json
import sys

from tests.matrix.test_matrix import COLUMNS, TABLE


def main() -> None:
    rows = [json.loads(file.read_text()) for file in sorted(TABLE.glob("*.json"))]
    lines = [f"| kind | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    said: list[str] = []
    for row in rows:
        cells = [row.get(column, "-") for column in COLUMNS]
        said += [
            f"{row['kind']}, {column}: {row[column]}" for column in COLUMNS if ":" in row.get(column, "")
        ]
        lines.append(f"| {row['kind']} | {' | '.join(each.partition(':')[0] for each in cells)} |")
    sys.stdout.write("\n".join([*lines, "", *said]) + "\n")


if __name__ == "__main__":
    main()

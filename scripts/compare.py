"""Compare results: python scripts/compare.py plan_outputs

Collects every summary below the folder, prints the table and writes it into the folder (table.md, table.csv, table.html)
with a page that shows it with plans, feature maps and training curves (report.html). With --published the numbers of
papers follow under their own heading, and in published.csv.
"""

from pathlib import Path

from wmbench.commands import Arguments, door


@door
def main() -> None:
    parser = Arguments(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("plan_outputs"), help="where plan.py wrote its results")
    parser.add_argument("--output", type=Path, help="where to write the table; by default into the folder")
    parser.add_argument("--published", action="store_true", help="cite the numbers of papers too, apart from the measured")
    arguments = parser.parse_args()
    # after --help, which does not wait for PyTorch
    from wmbench.commands.baselines import baseline_command
    from wmbench.evaluation.results import find_summaries
    from wmbench.reports.published import add_published, published_markdown
    from wmbench.reports.report import write_report
    from wmbench.reports.table import make_table, missing_baselines, to_markdown, write_table

    if not arguments.folder.is_dir():
        raise ValueError(f"no folder {arguments.folder}; plan first: python plan.py model_name=point_maze_lewm")
    summaries = find_summaries(arguments.folder)
    if not summaries:
        raise ValueError(f"no summary.json below {arguments.folder}; plan first: python plan.py model_name=point_maze_lewm")
    table = make_table(summaries)
    output = arguments.output or arguments.folder
    write_table(table, output)
    print(to_markdown(table))
    for name, folder in missing_baselines(table):
        print(f"a floor or ceiling is missing; add it with: {baseline_command(name, Path(folder), arguments.folder)}")
    report = write_report(table, output, f"wmbench: results in {arguments.folder}")
    print(f"wrote {output / 'table.md'}, {output / 'table.csv'} and {output / 'table.html'}\nreport: {report}")
    if arguments.published:
        add_published(output)
        print(f"\n{published_markdown()}\nadded these to table.md and table.html, and wrote {output / 'published.csv'}")


if __name__ == "__main__":
    main()

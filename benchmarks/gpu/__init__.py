"""What a GPU makes of Tunecast, in one command: `make gpu`, or `python -m benchmarks.gpu` from the repository's root.

First the tests marked `gpu`, then the benchmarks, most telling first: each part (`parts.PARTS`) is a process with a time
limit, whose results are added to a file as they come. The same command goes on where an earlier one stopped, be it by
--minutes or by a kill; what failed is tried again once the code has changed. At the end it prints a Markdown table
(`table`), which `--table` prints from the file on any machine. Without a GPU small models stand in on the CPU, which
tries the code and measures nothing.

Models have random weights of the published shapes, and texts are made of random words, so that nothing is fetched. Packages
that the machine lacks can be brought along as wheels (`--wheels FOLDER`; `python -m benchmarks.gpu.wheels` fetches them).
"""

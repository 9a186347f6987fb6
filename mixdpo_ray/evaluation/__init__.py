"""Models judged by what they write: benchmarks, judges and samples joined, and told in one page."""

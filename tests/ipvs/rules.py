"""Large tables: 5,000 services with 3 servers each are 20,000 rules."""

from __future__ import annotations


def rules(services: int = 5000, *, first: int = 0, weight: int = 1) -> list[str]:
    """Give the lines of so many services, in the very words of `ipvsadm -Sn`."""
    lines = []
    for number in range(first, first + services):
        key = f"-t 10.{10 + number // 2500}.{number // 250 % 10}.{number % 250 + 1}:80"
        lines.append(f"-A {key} -s rr -p 300")
        lines += [f"-a {key} -r 172.16.{each}.{number % 250 + 1}:8080 -m -w {weight + each}" for each in range(3)]
    return lines

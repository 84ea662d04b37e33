"""Keeps machines in a process of their own.

All threads of a Python process compute one at a time. So whatever a hostile guest makes us decode would delay the
repairs of every namespace, if it were decoded in the process that repairs those.
"""

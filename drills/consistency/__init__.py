"""Proves that the databases lose no acknowledged write, and never take writes in two places, whatever is broken meanwhile.

agent.py     runs on the nodes: writes at a fixed pace and watches the servers
history.py   judges what the agents saw, as pure functions
load.py      starts the agents over SSH, collects what they print, and reports
cluster.py   reaches the nodes and tells what state the database tier is in
faults.py    breaks a node, and mends it at the end
"""

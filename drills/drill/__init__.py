"""Breaks the running stack on purpose under load, heals it, and reports what shoppers would have noticed.

stack.py      what the inventory says, how hosts are reached, and whether the stack is whole
probe.py      what a host is asked for that, on the host
breakage.py   puts faults in place that heal themselves when nobody does
ending.py     has it end in order on a signal and when Ansible is gone, never while it heals
traffic.py    shoppers at a fixed pace, through the virtual IP
verdict.py    judges what was seen, as pure functions
page.py       shows it, as pure functions
stage.py      what a drill may do
runner.py     plays drills one after the other
catalogue/    the drills, one small file each
"""

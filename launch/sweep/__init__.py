"""A grid of runs: planned as files, run on this machine or by a scheduler.

  DIR/plan.json      the runs: name, config file, overrides, fingerprint
  DIR/NAME.sh        one script a run, to read and edit: bash DIR/NAME.sh
  DIR/NAME/          workdir of that run

A script leaves three small files in its workdir: `running` (host and process)
while it runs, `exit_code` when it has ended, and `log.txt`. They are the whole
state, so a run started by hand, by `v2a sweep launch` or by a scheduler looks
the same, and nothing has to keep running.
"""

"""A grid of runs: planned as files, run here or by a scheduler, followed.

  DIR/plan.json      the runs: config file, overrides, digest, cost; the backend
  DIR/NAME.sh        a script a run, to read and edit: bash DIR/NAME.sh
  DIR/NAME/          workdir of that run
  DIR/NAME.eval.sh   its evaluation, and DIR/eval/NAME/ what that finds
  DIR/report.sh      compares all runs, in DIR/report.html
  DIR/jobs.json      ids of what was submitted to a scheduler
  DIR/code.patch     changes of the code since its commit, if there were any

A script leaves three small files in its folder: `running` (host and process)
while it runs, `exit_code` when it has ended, and `log.txt`. Where there is no
scheduler they are the whole state, so a run looks the same whoever started it,
and nothing has to keep running.
"""

"""Where a run happens: engines and reward models in Ray actors, runners and the graph as Ray tasks."""

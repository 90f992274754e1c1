"""The course: map of sections, runner and grader of lessons."""
